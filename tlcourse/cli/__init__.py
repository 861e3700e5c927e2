"""What the commands of `tlcourse` do, one module each."""
