# shellcheck shell=bash
# Functions and versions for scripts that source this file at the root of the repository.

# Tools of more than one script.
# shellcheck disable=SC2034
SAM_CLI=aws-sam-cli==1.170.0 SAM_TRANSLATOR=aws-sam-translator==1.115.0 MINISTACK=ministack==1.5.33

UV=uv==0.13.9

# Installs Python packages into an environment of their own, target/NAME: installed NAME PACKAGE==VERSION...
# Does nothing if exactly these are installed already. Python packages exist for many tools that are written in other languages.
# Relies on `set -e`: a caller must not use it as a condition.
installed() {
    local tools=target/$1 uv=target/tools-uv
    shift
    if [ "$(cat "$tools/installed" 2>/dev/null)" = "$*" ]; then
        return
    fi
    if [ "$(cat "$uv/installed" 2>/dev/null)" != "$UV" ]; then
        python3 -m venv --clear "$uv"
        "$uv/bin/pip" install --quiet --disable-pip-version-check "$UV"
        echo "$UV" >"$uv/installed"
    fi
    python3 -m venv --clear --without-pip "$tools"
    "$uv/bin/uv" pip install --quiet --python "$tools/bin/python" "$@"
    echo "$*" >"$tools/installed"
}
