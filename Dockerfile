# One image for GPU (default) and CPU; docs/docker.md has the arguments for other drivers and cards, and what is in it.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

# torch has a layer of its own: a new cetpick does not send gigabytes again
FROM ${PYTHON_IMAGE} AS torch
# 2.10 is the newest torch whose wheel on PyPI is for CUDA 12; it has kernels from Volta (sm_70) to Blackwell (sm_120)
ARG TORCH_SPEC="torch==2.10.0"
ARG TORCH_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY constraints.txt /build/
# The constraints but that of torch, which was chosen. triton, 0.6 GB, is for torch.compile, which cetpick does without;
# what tells pip of it stays, or the next step would bring it again.
RUN sed '/^torch==/d' /build/constraints.txt >/build/others.txt \
    && python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --constraint /build/others.txt \
        ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"} "${TORCH_SPEC}" \
    && rm -rf /opt/venv/lib/python3*/site-packages/triton

FROM torch AS cetpick
COPY pyproject.toml README.md LICENSE /src/
COPY cetpick /src/cetpick
# beside the environment, not into it: this alone is the other layer
RUN pip --python /opt/venv/bin/python install --prefix /opt/cetpick --constraint /build/others.txt '/src[zarr,hdf]'

FROM ${PYTHON_IMAGE}
ARG PYTHON_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cetpick" \
      org.opencontainers.image.description="Particle picker for cryo-electron tomograms" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
COPY --from=torch /opt/venv /opt/venv
COPY --from=cetpick /opt/cetpick /opt/venv
# Any user, a root that is read-only, no network: caches go to /tmp, temporary files to /dev/shm where /tmp is read-only
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp TMPDIR=/tmp TEMP=/dev/shm MPLCONFIGDIR=/dev/shm/matplotlib XDG_CACHE_HOME=/tmp/cache \
    USER=cetpick LOGNAME=cetpick PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /data
USER 65534:65534
ENTRYPOINT ["cetpick"]
CMD ["--help"]
