# One image for GPU (default) and CPU; docs/docker.md has the arguments for other drivers and cards.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# 2.10 is the newest torch whose wheel on PyPI is for CUDA 12, which the drivers of most facilities run
ARG TORCH_SPEC="torch==2.10.0"
ARG TORCH_INDEX_URL=""
ARG PIP_FIND_LINKS
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
RUN /opt/venv/bin/pip install ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"} "${TORCH_SPEC}"
COPY constraints.txt pyproject.toml README.md LICENSE /src/
COPY cetpick /src/cetpick
# torch stays the one that was chosen
RUN sed '/^torch==/d' /src/constraints.txt >/tmp/constraints.txt \
    && /opt/venv/bin/pip install -c /tmp/constraints.txt '/src[zarr,hdf]'

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="cetpick" \
      org.opencontainers.image.description="Particle picker for cryo-electron tomograms" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /opt/venv /opt/venv
# Any user, a root that is read-only, and no network: all that libraries want to keep goes to /tmp
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib XDG_CACHE_HOME=/tmp/cache USER=cetpick LOGNAME=cetpick \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /data
USER 65534:65534
ENTRYPOINT ["cetpick"]
CMD ["--help"]
