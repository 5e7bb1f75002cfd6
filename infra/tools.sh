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

# Installs npm packages, of these versions, below target/NAME: installed_npm NAME PACKAGE@VERSION... No script of a package is run.
# Relies on `set -e`: a caller must not use it as a condition.
installed_npm() {
    local tools=target/$1
    shift
    if [ "$(cat "$tools/installed" 2>/dev/null)" = "$*" ]; then
        return
    fi
    rm -rf "$tools"
    mkdir -p "$tools"
    echo '{"private": true, "type": "module"}' >"$tools/package.json"
    npm install --prefix "$tools" --save-exact --ignore-scripts --no-audit --no-fund --silent "$@"
    echo "$*" >"$tools/installed"
}

# Starts the local stack with a sandbox, on free ports and in memory, and sets API to its base URL and TOKEN to the token of a
# caller who may do everything: local_stack LOG [OPTION...]. The stack ends with the script.
# Needs the executable of the tests: `cargo test --workspace --no-run` builds it.
local_stack() {
    local log=$1 executable=${CARGO_TARGET_DIR:-target}/debug/oncecast-local
    shift
    if [ ! -x "$executable" ]; then
        echo "$executable is missing: run cargo test --workspace --no-run" >&2
        return 1
    fi
    TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
    STACK_DIR=$(mktemp -d)
    (umask 077 && printf '[{"name": "check", "token": "%s", "scopes": ["broadcasts:read", "broadcasts:write", "contacts:write"]}]\n' \
        "$TOKEN" >"$STACK_DIR/tokens.json")
    # The log of an earlier stack would pass for this one's until it is begun anew.
    : >"$log"
    "$executable" up --port 0 --schedule-every 1s --api-token "$STACK_DIR/tokens.json" "$@" >"$log" 2>&1 &
    STACK=$!
    trap 'kill "$STACK" 2>/dev/null; wait "$STACK" || true; rm -rf "$STACK_DIR"' EXIT
    until grep -q '^Try:' "$log"; do
        kill -0 "$STACK" || { cat "$log" >&2; return 1; }
        sleep 0.2
    done
    API=$(sed -n 's/^ *API *//p' "$log")
    export API TOKEN
}
