"""A server of `/v1/completions` on loopback in front of a real model: the answers of vLLM, SGLang and llama-cpp-python, and
the faults and lies that servers have."""

import base64
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

_LIES = {
    "top only": lambda _, value, row: value if value == row.max() else -9999.0,
    "floor": lambda _, value, row: value if value == row.max() else -25.0,
    "null": lambda _, value, row: value if value == row.max() else None,
    "most likely": lambda _, __, row: float(row.max()),
    "tempered": lambda token, _, row: float((row / 2).log_softmax(-1)[token]),
}
LIES = ("no prompt", "shifted left", "shifted right", "wrong row", *_LIES)
KINDS = ("vllm", "vllm echo", "sglang", "llama")


class Server(ThreadingHTTPServer):
    """Kind is one of `KINDS`; `lie` changes the log-probabilities of prompts; faults come before right answers."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, model, tokenizer, kind="vllm", *, lie=None, faults=(), bos=(), key=None, login=None, limit=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model, self.tokenizer, self.kind, self.lie = model, tokenizer, kind, lie
        self.faults, self.bos, self.key, self.login, self.limit = list(faults), tuple(bos), key, login, limit
        self.asked, self.lock, self.die_after, self.pause = Counter(), threading.Lock(), None, 0.0
        self.under_way = self.most_under_way = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def name(self):
        return f"openai:http://127.0.0.1:{self.server_port}/v1#tiny"

    @torch.no_grad()
    def distributions(self, ids):
        with self.lock:
            return self.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)

    def complete(self, query):
        prompt = query["prompt"]
        if self.kind == "llama" and not isinstance(prompt, str):
            return 422, {"error": "prompt must be text"}
        ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"] if isinstance(prompt, str) else prompt
        ids = [*self.bos, *ids]
        if self.limit is not None and len(ids) + query["max_tokens"] > self.limit:
            return 400, {"error": f"the model has {self.limit} positions"}
        generated, made = [], []
        generator = torch.Generator().manual_seed(query.get("seed") or 0)
        for _ in range(query["max_tokens"]):
            last = self.distributions(ids + generated)[-1]
            greedy = query["temperature"] == 0
            token = int(last.argmax() if greedy else torch.multinomial(last.exp(), 1, generator=generator))
            made.append((token, float(last[token]), last))
            generated.append(token)
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(generated)}
        choice = {"index": 0, "text": "", "logprobs": None}
        places = self.places(ids)
        if self.kind == "vllm" and "prompt_logprobs" in query:
            choice["prompt_logprobs"] = [None if place is None else self.by_id(*place) for place in places]
        prompt_places = zip(ids, places, strict=True) if query.get("echo") and self.lie != "no prompt" else []
        shown = [*prompt_places, *zip(generated, made, strict=True)]
        if self.kind == "llama":
            shown = shown[len(self.bos) :]
            if shown and query.get("echo"):
                shown[0] = (shown[0][0], None)
        choice["logprobs"] = {
            "tokens": [self.piece(token, query) for token, _ in shown],
            "token_logprobs": [None if place is None else place[1] for _, place in shown],
            "top_logprobs": [None if place is None else self.top(place, query) for _, place in shown],
        }
        return 200, {"choices": [choice], "usage": usage}

    def places(self, ids):
        """Token, log-probability and distribution at each place of a prompt; None at the first."""
        rows = self.distributions(ids)
        found = [None, *((token, float(row[token]), row) for token, row in zip(ids[1:], rows[:-1], strict=True))]
        if self.lie == "shifted left":
            return [*found[1:], found[-1]]
        if self.lie == "shifted right":
            return [None, *[found[1]] * (len(found) > 1), *found[1:-1]]
        if self.lie == "wrong row":  # the distribution after the token instead of before it
            return [None, *((token, float(row[token]), row) for token, row in zip(ids[1:], rows[1:], strict=True))]
        lie = _LIES.get(self.lie)
        return [place and (place[0], lie(*place), place[2]) for place in found] if lie else found

    def by_id(self, token, value, row):
        best = int(row.argmax())
        rank = int((row >= value).sum()) if value is not None else 1
        return {str(best): {"logprob": float(row[best]), "rank": 1}, str(token): {"logprob": value, "rank": rank}}

    def piece(self, token, query):
        if query.get("return_tokens_as_token_ids") and self.kind.startswith("vllm"):
            return f"token_id:{token}"
        return " " + self.tokenizer.decode([token])

    def top(self, place, query):
        token, value, row = place
        best = int(row.argmax())
        found = {self.piece(best, query): float(row[best])}
        return found if self.kind == "sglang" else {**found, self.piece(token, query): value}


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, body):
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def allowed(self):
        server, given = self.server, self.headers.get("Authorization", "")
        wanted = server.key and f"Bearer {server.key}"
        if server.login:
            wanted = "Basic " + base64.b64encode(server.login.encode()).decode()
        return not wanted or given == wanted

    def do_GET(self):
        more = {} if self.server.limit is None else {"max_model_len": self.server.limit}
        self.answer(*((200, {"data": [{"id": "tiny", **more}]}) if self.allowed() else (401, "no")))

    def do_POST(self):
        server = self.server
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            fault = server.faults.pop(0) if server.faults else None
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
            if server.die_after is not None:
                server.die_after -= 1
                fault = 404 if server.die_after < 0 else fault
        time.sleep(server.pause)
        try:
            if fault is not None:
                answer = (fault, "later") if isinstance(fault, int) else (200, fault)
            elif not self.allowed():
                answer = 401, "no"
            else:
                answer = server.complete(query)
                with server.lock:
                    server.asked[json.dumps(query["prompt"])] += query["max_tokens"] == 1
        finally:
            # Before the answer: a client that has it may ask again at once.
            with server.lock:
                server.under_way -= 1
        if fault == "cut":
            self.connection.close()
        else:
            self.answer(*answer)
