# One image for agent, controller and command line. It holds Python, libvirt's client library and basekeeper, and no
# shell, no package manager and no program that could become another user: nothing in it serves somebody who broke in.
# docs/image.md says what is in it and how to check that; scripts/image builds it where there is no Docker.
#
# BASE may be any Debian or Ubuntu whose Python basekeeper supports. Tools come from it and do not reach the image:
# the last stage starts from nothing and takes Debian packages as they are, unpacked by scripts/image-root.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS tools
# Versions are not pinned: a build is to have Debian's security updates.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        binutils ca-certificates gcc libc6-dev libvirt-dev pkg-config python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements/build.txt requirements/libvirt.txt requirements/run.txt requirements/sbom.txt requirements/
# Without pip and without compiled modules, which would hold times. What is compiled here has no debug information:
# that names pip's temporary directory, which differs each time.
ENV CFLAGS=-g0 PYTHONHASHSEED=0 PIP_NO_CACHE_DIR=1 PIP_COMPILE=0
RUN python3 -m venv /build \
    && /build/bin/pip install --require-hashes -r requirements/build.txt \
    && /build/bin/pip wheel --require-hashes --no-build-isolation --wheel-dir /wheels -r requirements/libvirt.txt \
    && python3 -m venv --without-pip /opt/basekeeper \
    && /build/bin/pip --python /opt/basekeeper/bin/python3 install --require-hashes --only-binary :all: \
        -r requirements/run.txt \
    && /build/bin/pip --python /opt/basekeeper/bin/python3 install --no-index --find-links /wheels libvirt-python \
    && python3 -m venv /sbom \
    && /sbom/bin/pip install --require-hashes --only-binary :all: -r requirements/sbom.txt

FROM tools AS debian
ARG NOVA_UID=42424
ARG NOVA_GID=42424
# Another value takes Debian's packages anew where layers of an earlier build are kept.
ARG PACKAGES_OF=now
COPY scripts/image-root scripts/
RUN echo "Debian's packages of ${PACKAGES_OF}" && scripts/image-root debian "${NOVA_UID}" "${NOVA_GID}"

FROM debian AS libraries
RUN scripts/image-root libraries

FROM libraries AS application
COPY LICENSE README.md pyproject.toml ./
COPY operator operator
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . && scripts/image-root application

FROM scratch
ARG NOVA_UID=42424
ARG NOVA_GID=42424
ARG VERSION=0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="basekeeper" \
      org.opencontainers.image.description="Keeps nova's cache of base images small, whole and explained" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.url="https://basekeeper.io" \
      org.opencontainers.image.documentation="https://basekeeper.io/docs" \
      org.opencontainers.image.vendor="The basekeeper authors" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# The root file system may be read-only: all modules are compiled, and nothing is to be written beside them.
ENV PATH=/opt/basekeeper/bin:/usr/bin \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1
# Three layers, what changes most last: a node that has the release before fetches what is new.
COPY --from=debian /image /
COPY --from=libraries /image/opt /opt
COPY --from=application /layer /
USER ${NOVA_UID}:${NOVA_GID}
ENTRYPOINT ["basekeeper"]
