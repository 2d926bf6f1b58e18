"""A collector of traces for tests: OTLP over HTTP, as an OpenTelemetry collector takes it."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """Keeps every request as it came, and the spans that it held by the name of their service."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        kept = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                kept.append(gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def spans(self) -> list[tuple[str, str, Span]]:
        """Site, service and span of all that came."""
        found = []
        for body in list(self.bodies):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                said = {each.key: each.value.string_value for each in resource.resource.attributes}
                for scope in resource.scope_spans:
                    found += [(said["service.namespace"], said["service.name"], span) for span in scope.spans]
        return found

    def trace_of(self, key: str, name: str = "") -> dict[tuple[str, str, str], Span]:
        """The spans of the first trace that names a dossier, in a span of this name; by site, service and name."""
        spans = self.spans()
        named = [span for _, _, span in spans if any(a.value.string_value == key for a in span.attributes)]
        of = [span for span in named if span.name == (name or span.name)]
        if not of:
            return {}
        first = min(of, key=lambda span: span.start_time_unix_nano).trace_id
        return {(site, service, span.name): span for site, service, span in spans if span.trace_id == first}
