"""A stand-in for a model server: OpenAI chat completions with SSE, one worker, fixed service times.

It exists so that `vitreous load` can be tested without a model. Runs in threads of the test process
and ends with it. behaviour(body) may return "error", "cut", "500" or None.
"""
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StandIn:
    def __init__(self, first_s=0.05, gap_s=0.01, workers=64, behaviour=lambda body, i: None):
        self.first_s, self.gap_s, self.behaviour = first_s, gap_s, behaviour
        self.slots, self.lock, self.bodies = threading.Semaphore(workers), threading.Lock(), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def chunk(self, text):
                data = text.encode()
                self.wfile.write(b"%x\r\n" % len(data) + data + b"\r\n")
                self.wfile.flush()

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.bodies.append((body, self.headers.get("Authorization")))
                    how = outer.behaviour(body, len(outer.bodies) - 1)
                if how == "500":
                    self.send_response(500)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                try:
                    with outer.slots:
                        self.answer(body, how)
                except OSError:
                    pass  # the client went away

            def event(self, o):
                text = "data: " + (o if isinstance(o, str) else json.dumps(o)) + "\r\n\r\n"
                half = len(text) // 2  # an event may arrive in pieces
                self.chunk(text[:half])
                self.chunk(text[half:])

            def answer(self, body, how):
                n = body["max_tokens"]
                self.event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
                self.chunk(": ping\n\n")
                time.sleep(outer.first_s)
                for i in range(n):
                    if i:
                        time.sleep(outer.gap_s)
                    if how == "cut" and i == 2:
                        self.close_connection = True
                        self.chunk("data: {\"choi")
                        self.connection.close()
                        return
                    if how == "error" and i == 2:
                        self.event({"error": {"message": "numerical error"}})
                        break
                    self.event({"choices": [{"delta": {"content": f"t{i} "}}]})
                self.event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": n}})
                self.event("[DONE]")
                self.chunk("")

        class Server(ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/chat/completions"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
