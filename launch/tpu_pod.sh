#!/usr/bin/env bash
# Starts one run over all hosts of a TPU pod slice of Google Cloud:
#
#     launch/tpu_pod.sh --name=pod --zone=europe-west4-b [--create=v5litepod-16] [--delete] \
#         [--dry_run] -- --config=configs/resnet.py:imagenet2012 --workdir=/mnt/runs/resnet \
#         --config.data.data_dir=/mnt/tfds
#
# Copies the last commit to every host, installs it and starts it there; JAX learns the hosts from
# the pod. --create=TYPE makes the slice first (--version=RUNTIME; --spot for a preemptible one),
# --delete removes it at the end, --dry_run prints the commands. All hosts must see the workdir:
# Filestore, or a mounted bucket. The same command again continues from the last checkpoint. Needs
# gcloud, logged in; --project=ID if it has no default.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "error: $1" >&2
    exit 2
}

name='' zone='' create='' version=v2-alpha-tpuv5-lite project='' spot='' delete='' dry_run=''
while (($#)); do
    case "$1" in
        --name=* | --zone=* | --create=* | --version=* | --project=*)
            option=${1%%=*}
            printf -v "${option#--}" %s "${1#*=}"
            ;;
        --spot | --delete | --dry_run) printf -v "${1#--}" yes ;;
        --)
            shift
            break
            ;;
        *) fail "unknown option '$1'; flags of the run come after --" ;;
    esac
    shift
done
[[ -n "$dry_run" ]] || git rev-parse --verify --quiet HEAD > /dev/null ||
    fail "$PWD is no clone of the repository, whose last commit is copied"
[[ -n "$name" && -n "$zone" ]] || fail "--name and --zone are missing"
[[ "$name" =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
    fail "--name=$name: small letters, digits and hyphens"
(($#)) || fail "the run's flags are missing: -- --config=configs/PAPER.py"

do_it() {
    if [[ -n "$dry_run" ]]; then
        printf '%q ' "$@" | sed 's/ $/\n/'
    else
        "$@"
    fi
}

where=("--zone=$zone" ${project:+"--project=$project"})
tpu=(gcloud compute tpus tpu-vm)
archive=${TMPDIR:-/tmp}/cnn_papers-$name.tar.gz
file=${archive##*/}
install="rm -rf cnn_papers && mkdir cnn_papers && tar -xzf $file -C cnn_papers"
install+=" && python3 -m pip install --quiet --editable 'cnn_papers[tpu]'"
train="cd cnn_papers && python3 -m cnn_papers.main --coordinator=auto$(printf ' %q' "$@")"

if [[ -n "$create" ]]; then
    do_it "${tpu[@]}" create "$name" "${where[@]}" \
        "--accelerator-type=$create" "--version=$version" ${spot:+--spot}
fi
if [[ -n "$delete" ]]; then
    trap 'do_it "${tpu[@]}" delete "$name" "${where[@]}" --quiet' EXIT
fi
do_it git archive --format=tar.gz "--output=$archive" HEAD
do_it "${tpu[@]}" scp "$archive" "$name:$file" "${where[@]}" --worker=all
do_it "${tpu[@]}" ssh "$name" "${where[@]}" --worker=all "--command=$install"
do_it "${tpu[@]}" ssh "$name" "${where[@]}" --worker=all "--command=$train"
