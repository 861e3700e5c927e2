"""What authors run: build the lesson copies, remake results, set the course up."""
