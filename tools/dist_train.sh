#!/usr/bin/env bash
# Usage: tools/dist_train.sh CONFIG GPUS [options of train.py]
# NNODES, NODE_RANK, PORT and MASTER_ADDR come from the environment for more than one machine.
set -euo pipefail

CONFIG=$1
GPUS=$2
shift 2
torchrun --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$GPUS" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "$@"
