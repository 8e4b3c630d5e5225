#!/usr/bin/env bash
# Starts one run over the hosts of a TPU slice on Google Kubernetes Engine, from gke_jobset.yaml:
#
#     launch/gke.sh --name=resnet --image=REGISTRY/cnn_papers:1 \
#         --accelerator=tpu-v5-lite-podslice --topology=4x4 --hosts=4 --chips=4 --claim=runs \
#         [--restarts=20] [--dry_run] -- --config=configs/resnet.py:imagenet2012 \
#         --workdir=/runs/resnet --config.data.data_dir=/runs/tfds
#
# --chips is the number of chips of one host. --claim names a PersistentVolumeClaim that all pods
# can write to (ReadWriteMany), mounted at /runs. --dry_run prints the manifest. Needs kubectl with
# a cluster that has JobSet, and an image with this package.
set -euo pipefail

fail() {
    echo "error: $1" >&2
    exit 2
}

declare -A values=([RESTARTS]=20)
dry_run=''
while (($#)); do
    case "$1" in
        --name=* | --image=* | --accelerator=* | --topology=* | \
            --hosts=* | --chips=* | --claim=* | --restarts=*)
            option=${1%%=*}
            option=${option#--}
            values[${option^^}]=${1#*=}
            ;;
        --dry_run) dry_run=yes ;;
        --)
            shift
            break
            ;;
        *) fail "unknown option '$1'; flags of the run come after --" ;;
    esac
    shift
done
(($#)) || fail "the run's flags are missing: -- --config=configs/PAPER.py"

for place in NAME IMAGE ACCELERATOR TOPOLOGY HOSTS CHIPS CLAIM RESTARTS; do
    [[ -v values[$place] ]] || fail "--${place,,}=… is missing"
    value=${values[$place]}
    case "$place" in
        HOSTS | CHIPS | RESTARTS)
            [[ "$value" =~ ^[0-9]+$ ]] || fail "--${place,,}=$value must be a number"
            ;;
        IMAGE)
            [[ "$value" =~ ^[-a-zA-Z0-9._/:@]+$ ]] || fail "--image=$value is no image's name"
            ;;
        *)
            [[ "$value" =~ ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$ ]] ||
                fail "--${place,,}=$value: small letters, digits, hyphens"
            ;;
    esac
done

flags=
for flag in "$@"; do
    [[ "$flag" != *$'\n'* ]] || fail "a flag holds a line break"
    flag=${flag//\\/\\\\}
    flags+="${flags:+, }\"${flag//\"/\\\"}\""
done
values[FLAGS]="[$flags]"

manifest=$(< "$(dirname "$0")/gke_jobset.yaml")
manifest=${manifest#*checkpoint.$'\n'} # without the comment at its head
for place in "${!values[@]}"; do
    manifest=${manifest//"\${$place}"/"${values[$place]}"}
done
if [[ -n "$dry_run" ]]; then
    echo "$manifest"
else
    kubectl apply --filename=- <<< "$manifest"
fi
