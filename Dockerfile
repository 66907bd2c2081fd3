# One file for the images of all services: `make images`, or docker build --build-arg SERVICE=gateway -t headrace/gateway .
# SERVICE is a name of locks/<service>.txt, PACKAGE that of its folder, where the two differ: --build-arg SERVICE=feature-worker
# --build-arg PACKAGE=feature_worker. An image depends on core and on its own folder alone: a change elsewhere builds none anew.
# Any base with Python 3.11 does; BUILDER has the same python3 at the same path, its venv and ensurepip, and strip.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm
ARG BUILDER=docker.io/library/python:3.11-bookworm

FROM ${BUILDER} AS build
ARG SERVICE
ARG PACKAGE=${SERVICE}
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python3 -m venv tools && python3 -m venv --without-pip /opt/headrace/venv
# Only what is locked, by its hash; this layer stays as long as the lock does.
COPY locks/build.txt locks/${SERVICE}.txt locks/
RUN tools/bin/pip install --quiet --require-hashes --no-deps -r locks/build.txt \
 && tools/bin/pip --python /opt/headrace/venv/bin/python install --quiet --require-hashes --no-deps --no-compile -r locks/${SERVICE}.txt
# A fifth of it serves nobody who runs it: tests, headers, debugging symbols. Libraries in *.libs were patched after they were
# linked, which strip does not survive.
RUN cd /opt/headrace/venv/lib/python3.11/site-packages \
 && find . -type d \( -name tests -o -name include \) -prune -exec rm -rf {} + \
 && find . -type f \( -name '*.a' -o -name '*.h' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.pyx' \) -delete \
 && find . -name '*.so' -size +100k -not -path './*.libs/*' -exec strip --strip-unneeded {} + \
 && python3 -m compileall -q .
COPY services/core services/core
COPY services/${PACKAGE} services/${PACKAGE}
# `headrace-gateway` is also `headrace-service`, so that the image runs by itself.
RUN tools/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir wheels services/core services/${PACKAGE} \
 && tools/bin/pip --python /opt/headrace/venv/bin/python install --quiet --no-index --no-deps --compile wheels/*.whl \
 && ln -s headrace-${SERVICE} /opt/headrace/venv/bin/headrace-service

FROM ${PYTHON}
ENV PATH=/opt/headrace/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HEADRACE_DEFINITIONS=/opt/headrace/definitions
COPY --from=build /opt/headrace/venv /opt/headrace/venv
COPY definitions/ /opt/headrace/definitions/
# Nobody's: without a right to write anything but /tmp and what is mounted. Libraries that ask for the user's name or home, which
# there are not, find these.
ENV USER=headrace HOME=/tmp
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["headrace-service"]
