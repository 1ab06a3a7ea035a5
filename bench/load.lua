-- What an application's SDK sends: about 3.3 kB of chat, with the headers of the OpenAI SDK.
local line = "Explain, in two sentences and for a reader in a hurry, why the ledger keeps one row. "
local filler = string.rep(line, 34)
local stream = os.getenv("BENCH_STREAM") == "1"

wrk.method = "POST"
wrk.body = '{"messages":[{"role":"system","content":"You answer briefly."},{"role":"user","content":"'
  .. filler .. '"}],"model":"gpt-5","max_completion_tokens":2048,"temperature":1,"seed":7'
  .. (stream and ',"stream":true,"stream_options":{"include_usage":true}' or '')
  .. ',"metadata":{"feature":"bench","release":"2026-11"},"user":"u-417"}'
wrk.headers["Accept"] = "application/json"
wrk.headers["Accept-Encoding"] = "identity"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["User-Agent"] = "OpenAI/Python 2.54.0"
wrk.headers["X-Stainless-Lang"] = "python"
wrk.headers["X-Stainless-Package-Version"] = "2.54.0"
wrk.headers["X-Stainless-OS"] = "Linux"
wrk.headers["X-Stainless-Arch"] = "x64"
wrk.headers["X-Stainless-Runtime"] = "CPython"
wrk.headers["X-Stainless-Runtime-Version"] = "3.11.7"
wrk.headers["X-Stainless-Async"] = "async:asyncio"
wrk.headers["X-Stainless-Retry-Count"] = "0"
wrk.headers["X-Stainless-Read-Timeout"] = "600"
wrk.headers["Authorization"] = "Bearer " .. (os.getenv("BENCH_KEY") or "none")
wrk.headers["X-Taximeter-Tags"] = "feature=bench,env=prod"

function done(summary, latency, requests)
  local bad = summary.errors
  io.write(string.format(
    "RESULT requests=%d us=%d p50=%d p99=%d socket=%d status=%d\n",
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    bad.connect + bad.read + bad.write + bad.timeout, bad.status))
end
