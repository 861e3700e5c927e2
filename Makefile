# Everything is done by tools/bootstrap.py, which needs only Python 3.11+ (Windows: call it directly).
PYTHON ?= python3
.PHONY: setup lab test run doctor lessons lock results clean

setup lab test run doctor:
	@$(PYTHON) tools/bootstrap.py $@ $(ARGS)

# For authors: learner and solution copies and the instructor's guide from notebooks/src, the picture
# of the package from its imports.
lessons:
	@.venv/bin/python -m tools.lessons
	@.venv/bin/python -m tools.instructor
	@.venv/bin/python -m tools.architecture

# For authors: the locks from pyproject.toml (needs uv). No index address may enter them.
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	pyproject.toml tools/requirements-build.in
lock:
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --extra dev --constraint requirements.lock --output-file requirements-dev.lock

# For authors: the published tables in data/results (real images at hand; about half an hour).
results:
	@.venv/bin/python -m tools.publish_results

clean:
	rm -rf build .mypy_cache .pytest_cache .ruff_cache
