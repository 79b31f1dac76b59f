#!/usr/bin/env bash
# The tests as other machines run them: fewer instruction sets, one and two threads; a folder with a difficult name, no
# git, no browser, no superuser. Usage: tests/machines.sh PYTHON, from the project's folder.
set -euo pipefail
case $1 in /*) python=$1 ;; *) python=$PWD/$1 ;; esac
numerical=(tests/test_{losses,teachers,memory,objectives,metrics,statistics,trainer,evaluation,published_records,augmentation}.py tests/models/test_perceptron.py)
pytest=("$python" -m pytest -q -p no:cacheprovider)

as() { # NAME VARIABLE=VALUE… : the numerical tests in this environment
    echo "== numerical tests, $1"
    shift
    env "$@" "${pytest[@]}" "${numerical[@]}"
}
as "no vector instructions beyond the processor's first, one thread" \
    ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=1 &
as "AVX2, one thread" ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 &
for job in $(jobs -p); do wait "$job"; done
as "this machine's own instructions, two threads" OMP_NUM_THREADS=2

elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
copy="$elsewhere/Übung à côté"
mkdir "$copy" "$elsewhere/bin"
tar -c --exclude=.git --exclude='.venv*' --exclude=_build . | tar -x -C "$copy"
for tool in bash sh env uname; do ln -s "$(command -v "$tool")" "$elsewhere/bin/"; done
ordinary=()
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then # without its privileges, the superuser is an ordinary user
    ordinary=("$(command -v setpriv)" --bounding-set=-all --inh-caps=-all)
fi
echo "== the package, its notebooks and its command line in “$copy”, without git, browser and privileges"
cd "$copy"
PATH=$elsewhere/bin PYTHONPATH=$copy OMP_NUM_THREADS=1 "${ordinary[@]}" "${pytest[@]}" -rs \
    tests/test_{build,cli,execute,layout,notebooks,store,resume,sweep,book}.py
