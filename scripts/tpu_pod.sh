#!/usr/bin/env bash
# rlvr_jax on a TPU VM or a slice of them: create, install, run on all workers, logs, stop, delete.
#
#   export TPU_NAME=my-pod ZONE=us-west4-a ACCELERATOR=v5litepod-64
#   scripts/tpu_pod.sh create
#   scripts/tpu_pod.sh install
#   scripts/tpu_pod.sh run --config=configs/grpo_qwen7b.py --workdir=gs://BUCKET/runs/mine
#   scripts/tpu_pod.sh logs            # of worker 0; WORKER=3 scripts/tpu_pod.sh logs
#   scripts/tpu_pod.sh stop            # SIGTERM: every worker saves and ends with 0
#   scripts/tpu_pod.sh delete
#
# Environment: TPU_NAME, ZONE; PROJECT (gcloud's own if unset); ACCELERATOR; RUNTIME (the VM image,
# by accelerator if unset); SPOT=1 for a preemptible slice; PYTHON (3.12); EXTRA_ENV, words
# NAME=VALUE that the run gets, as HF_TOKEN=...; STOP_SECONDS (600) to wait for a run to save;
# DRY_RUN=1 prints the commands and runs none. It needs gcloud, logged in, and git.
set -euo pipefail

usage() {
  sed -n '2,/^set -euo/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
  exit "${1:-2}"
}

need() {
  local name
  for name in "$@"; do
    if [[ -z "${!name:-}" ]]; then
      echo "scripts/tpu_pod.sh: ${name} is not set; export it first (see --help)" >&2
      exit 2
    fi
  done
}

# gcloud with the zone and project of the slice
tpu() {
  local command=(gcloud compute tpus tpu-vm "$@" "--zone=${ZONE}")
  [[ -n "${PROJECT:-}" ]] && command+=("--project=${PROJECT}")
  if [[ "${DRY_RUN:-0}" == 1 ]]; then
    printf '%q ' "${command[@]}"
    echo
  else
    "${command[@]}"
  fi
}

# one command line on some workers, all by default
on_workers() {
  tpu ssh "${TPU_NAME}" "--worker=${2:-all}" "--command=$1"
}

runtime() {
  case "${ACCELERATOR}" in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

create() {
  need TPU_NAME ZONE ACCELERATOR
  local more=()
  [[ "${SPOT:-0}" == 1 ]] && more+=(--spot)
  tpu create "${TPU_NAME}" "--accelerator-type=${ACCELERATOR}" \
    "--version=${RUNTIME:-$(runtime)}" ${more[@]+"${more[@]}"}
}

# the checkout's last commit on every worker, in an environment of its own
install() {
  need TPU_NAME ZONE
  local root archive
  root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
  archive="$(mktemp -d)/rlvr_jax.tar.gz"
  git -C "${root}" archive --format=tar.gz --prefix=rlvr_jax/ -o "${archive}" HEAD
  tpu scp "${archive}" "${TPU_NAME}:rlvr_jax.tar.gz" --worker=all
  rm -r "$(dirname "${archive}")"
  on_workers "set -e; tar xzf rlvr_jax.tar.gz; cd rlvr_jax; \
python3 -m pip install -q --user uv; \
[ -x .venv/bin/python ] || python3 -m uv venv -q --seed --python ${PYTHON:-3.12} .venv; \
.venv/bin/python -m pip install -q -e '.[tpu]'; \
.venv/bin/python -c 'import importlib.metadata as m; print(m.version(\"jax\"), m.version(\"libtpu\"))'"
}

# the same command on every worker: jax finds the others by itself
run() {
  need TPU_NAME ZONE
  if [[ $# == 0 ]]; then
    echo 'scripts/tpu_pod.sh run: which flags of main.py? e.g. --config=configs/grpo_qwen7b.py' >&2
    exit 2
  fi
  local words
  words="$(printf '%q ' "$@")"
  on_workers "set -e; cd rlvr_jax; \
if [ -f run.pid ] && kill -0 \$(cat run.pid) 2>/dev/null; then echo 'a run is going on: stop it first' >&2; exit 1; fi; \
${EXTRA_ENV:+export ${EXTRA_ENV}; }setsid nohup .venv/bin/python main.py ${words}> run.log 2>&1 < /dev/null & \
echo \$! > run.pid"
}

logs() {
  need TPU_NAME ZONE
  on_workers "tail -n ${LINES_SHOWN:-100} -F rlvr_jax/run.log" "${WORKER:-0}"
}

status() {
  need TPU_NAME ZONE
  tpu describe "${TPU_NAME}" '--format=value(state,health)'
  on_workers "cd rlvr_jax 2>/dev/null && if [ -f run.pid ] && kill -0 \$(cat run.pid) 2>/dev/null; \
then echo running; else echo 'no run'; fi; tail -n 1 run.log 2>/dev/null || true"
}

stop() {
  need TPU_NAME ZONE
  on_workers "cd rlvr_jax; [ -f run.pid ] || exit 0; pid=\$(cat run.pid); kill -TERM \$pid 2>/dev/null || true; \
for i in \$(seq ${STOP_SECONDS:-600}); do kill -0 \$pid 2>/dev/null || { rm -f run.pid; echo stopped; exit 0; }; sleep 1; done; \
echo \"still running after ${STOP_SECONDS:-600} s\" >&2; exit 1"
}

delete() {
  need TPU_NAME ZONE
  tpu delete "${TPU_NAME}" --quiet
}

case "${1:-}" in
  create | install | run | logs | status | stop | delete)
    "$@"
    ;;
  -h | --help | help) usage 0 ;;
  *) usage ;;
esac
