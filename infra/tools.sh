# Sourced by scripts, at the root of the repository.

# What more than one of them uses.
SAM_CLI=aws-sam-cli==1.170.0
SAM_TRANSLATOR=aws-sam-translator==1.115.0
MINISTACK=ministack==1.5.33

# Installs Python packages below target/, in an environment of their own: installed NAME PACKAGE==VERSION...
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
UV=uv==0.13.9
