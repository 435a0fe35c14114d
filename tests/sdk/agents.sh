#!/usr/bin/env bash
# Lets the real Claude Code and Codex do a task of two turns, each with a tool, through the
# gateway, with models of another vendor. Prints one line per agent and model.
#   SWITCHPOINT_ADDRESS  the gateway's address, without a path
#   SWITCHPOINT_KEY      a key that may call every model
# They are installed once, below target/sdk/agents. Where that cannot be done, it says so.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}/sdk/agents
mkdir -p "$target"
target=$(cd "$target" && pwd)

stamp=$(sha256sum <"$here/agents/package-lock.json")
if [[ $(cat "$target/stamp" 2>/dev/null) != "$stamp" ]]; then
  cp "$here"/agents/package*.json "$target/"
  if ! npm ci --prefix "$target" --no-audit --no-fund --loglevel=error; then
    echo "n/a  agents: their packages cannot be installed here"
    exit 0
  fi
  echo "$stamp" >"$target/stamp"
fi
[[ ${1:-} != --install ]] || exit 0

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0

# Nothing of the surroundings, and no way out: whatever is not on loopback meets a closed port.
alone() {
  env -i PATH="$target/node_modules/.bin:$PATH" HOME="$folder/home" TERM=dumb \
    HTTPS_PROXY=http://127.0.0.1:9 HTTP_PROXY=http://127.0.0.1:9 NO_PROXY=127.0.0.1 "$@"
}

claude_says() {
  alone ANTHROPIC_BASE_URL="$SWITCHPOINT_ADDRESS" ANTHROPIC_AUTH_TOKEN="$SWITCHPOINT_KEY" \
    ANTHROPIC_DEFAULT_HAIKU_MODEL="$model" ANTHROPIC_DEFAULT_SONNET_MODEL="$model" \
    ANTHROPIC_DEFAULT_OPUS_MODEL="$model" CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 \
    CLAUDE_CONFIG_DIR="$folder/home/claude" DISABLE_AUTOUPDATER=1 API_TIMEOUT_MS=20000 \
    CLAUDE_CODE_MAX_RETRIES=0 timeout 90 claude --print --model "$model" --allowedTools=Read "$@"
}

codex_turn() {
  local turn=$1 expected=$2
  shift 2
  alone SWITCHPOINT_KEY="$SWITCHPOINT_KEY" CODEX_HOME="$folder/home/codex" timeout 90 codex "$@" \
    --output-last-message "$folder/last" >"$folder/output" 2>&1 </dev/null || true
  # Its log shows what the tool printed; only the model's own last words count.
  [[ ! -s $folder/last ]] || mv "$folder/last" "$folder/output"
  check codex "$turn" "$expected"
}

# A turn is right when the answer tells what was in the file.
check() {
  local name=$1 turn=$2 expected=$3
  if [[ $(<"$folder/output") == *"$expected"* ]]; then
    echo "ok   $name → $model turn $turn"
  else
    failed=1
    echo "FAIL $name → $model turn $turn: $(tail -c 1500 "$folder/output" | tr '\n' ' ')"
  fi
}

begin() {
  rm -rf "$folder/home" "$folder/desk"
  mkdir -p "$folder/home/codex" "$folder/desk"
  echo "the first secret is plum" >"$folder/desk/one.txt"
  echo "the second secret is fig" >"$folder/desk/two.txt"
  cd "$folder/desk"
}

claude_task() {
  begin
  claude_says "CALL Read {\"file_path\": \"$folder/desk/one.txt\"}" >"$folder/output" 2>&1 </dev/null || true
  check claude-code 1 plum
  claude_says --continue "CALL Read {\"file_path\": \"$folder/desk/two.txt\"}" >"$folder/output" 2>&1 </dev/null || true
  check claude-code 2 fig
}

codex_task() {
  begin
  cat >"$folder/home/codex/config.toml" <<CONFIG
model = "$model"
model_provider = "switchpoint"
approval_policy = "never"
sandbox_mode = "danger-full-access"
model_reasoning_summary = "auto"
[model_providers.switchpoint]
name = "Switchpoint"
base_url = "$SWITCHPOINT_ADDRESS/v1"
env_key = "SWITCHPOINT_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
CONFIG
  codex_turn 1 plum exec --skip-git-repo-check "CALL exec_command {\"cmd\": \"cat one.txt\"}"
  codex_turn 2 fig exec resume --last --skip-git-repo-check "CALL exec_command {\"cmd\": \"cat two.txt\"}"
}

for model in ${CLAUDE_MODELS:-gemini/gemini-3-pro-preview openai/gpt-5-mini bedrock/us.anthropic.claude-sonnet-4-6}; do claude_task; done
for model in ${CODEX_MODELS:-anthropic/claude-sonnet-4-6 gemini/gemini-3-pro-preview}; do codex_task; done
exit $failed
