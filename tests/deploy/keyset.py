"""Serves a JSON Web Key Set over HTTP, as a provider does."""

import http.server
import json
import threading


def serve(keys):
    """Serves the keys on a free port of 127.0.0.1 for as long as this process lives, and returns the address."""
    body = json.dumps({"keys": keys}).encode()

    class Keys(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/jwks.json"
