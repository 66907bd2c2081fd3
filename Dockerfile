# One file for the images of all services: docker build --build-arg SERVICE=gateway -t headrace/gateway .
# SERVICE is a name of locks/<service>.txt, and of the folder services/<service> with _ for -.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON} AS build
ARG SERVICE
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/headrace/venv
# Only what is locked, by its hash; this layer stays as long as the lock does.
COPY locks/build.txt locks/${SERVICE}.txt locks/
RUN python -m pip install --quiet --require-hashes --no-deps --target /build/tools -r locks/build.txt \
 && python -m pip --python /opt/headrace/venv/bin/python install --quiet --require-hashes --no-deps --compile -r locks/${SERVICE}.txt \
 && rm -rf /opt/headrace/venv/lib/python3.11/site-packages/tensorflow/include
COPY services/ services/
# `headrace-gateway` is also `headrace-service`, so that the image runs by itself.
RUN PYTHONPATH=/build/tools python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir wheels services/core "services/$(echo ${SERVICE} | tr - _)" \
 && python -m pip --python /opt/headrace/venv/bin/python install --quiet --no-index --no-deps --compile wheels/*.whl \
 && ln -s headrace-${SERVICE} /opt/headrace/venv/bin/headrace-service

FROM ${PYTHON}
ENV PATH=/opt/headrace/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HEADRACE_DEFINITIONS=/opt/headrace/definitions
COPY --from=build /opt/headrace/venv /opt/headrace/venv
COPY definitions/ /opt/headrace/definitions/
# Nobody's: without a name, a home or a right to write anything but /tmp and what is mounted.
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["headrace-service"]
