# docker build --build-arg PLATFORM=gpu -t rlvr_jax .          # cpu (the default) | gpu | tpu
# docker run --rm --gpus=all -v "$PWD/runs:/runs" rlvr_jax \
#   --config=configs/quickstart.py --workdir=/runs/quickstart
ARG PYTHON=3.12
FROM python:${PYTHON}-slim
ARG PLATFORM=cpu

# git: `versions.json` names the commit where the checkout is mounted
RUN apt-get update \
  && apt-get install -y --no-install-recommends git \
  && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/rlvr_jax
COPY pyproject.toml README.md LICENSE ./
COPY rlvr_jax rlvr_jax
# the CUDA libraries come as wheels: of the host only the driver is needed
RUN case "${PLATFORM}" in \
    cpu) extra='' ;; \
    gpu | tpu) extra="[${PLATFORM}]" ;; \
    *) echo "PLATFORM=${PLATFORM} is none of cpu, gpu, tpu" >&2; exit 1 ;; \
  esac \
  && python -m pip install --no-cache-dir -e ".${extra}"
COPY main.py ./
COPY configs configs
COPY bench bench

# compiled programs and models outlive the container where /cache is a volume
ENV XDG_CACHE_HOME=/cache HF_HOME=/cache/huggingface RLVR_MODELS=/cache/models
ENTRYPOINT ["python", "main.py"]
CMD ["--help"]
