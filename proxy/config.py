"""What can be configured: the YAML as frozen Structs. A field's docstring is its entry in the manual."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from proxy.values import KeyHash, Members, Parameters, ProfileChoice, Size

DEMO = "demo:"
"""The URL of the demo model that the program itself serves."""

Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Status = Annotated[int, Meta(ge=100, le=599)]


class ServerTls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """HTTPS for the clients. The files are read again at each reload, and when they change."""

    certificate: str
    """File with the certificate and those between it and the authority, PEM."""

    key: str
    """File with its private key, PEM, without a password."""

    client_ca: str = ""
    """File with the authorities whose client certificates are demanded; empty: none is asked for."""


class Listen(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where clients reach the proxy."""

    host: str = "127.0.0.1"
    """Address or name to listen on.

    Other machines reach it on 0.0.0.0 or ::, which needs `keys`, or `open: true`.
    """

    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """TCP port; 0 takes any free one and says which."""

    socket: str = ""
    """Path of a unix socket to listen on instead of host and port."""

    tls: ServerTls | None = None
    """HTTPS; null: plain HTTP."""


class Timeouts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to wait for an upstream, in seconds; null: for ever."""

    connect: Seconds | None = 10
    """Until the connection is there, TLS included."""

    accept: Seconds | None = 600
    """From the request until the answer's status. Engines with a full queue send nothing before the first token."""

    idle: Seconds | None = 300
    """Between two reads of the answer; comments count as life."""

    total: Seconds | None = None
    """For the whole answer. A limit here cuts long answers off, however lively they are."""


class Check(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An active health check: a GET now and then."""

    path: str = "/health"
    """On the upstream's host; with the upstream's headers and key."""

    interval: Seconds = 10
    """Seconds between two checks."""

    timeout: Seconds = 5
    """Seconds until the answer must be there."""

    status: Annotated[tuple[Status, ...], Meta(min_length=1)] = (200,)
    """Statuses that mean healthy."""

    rise: Count = 1
    """So many good checks in a row make it healthy again."""

    fall: Count = 2
    """So many bad ones in a row make it unhealthy."""


class Health(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an upstream is passed over. When none is left, they are asked all the same."""

    max_fails: Annotated[int, Meta(ge=0)] = 3
    """So many failures within `fail_duration` make it unavailable for as long; 0: never."""

    fail_duration: Seconds = 30
    """Seconds."""

    slow_start: Annotated[float, Meta(ge=0)] = 10
    """Seconds over which one that comes back gets more and more of its share; 0: all at once."""

    check: Check | None = None
    """Active checks; null: none, what requests meet with is enough."""


class Waiting(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The line of those who wait for an upstream that has all the requests it may have; keys take turns in it."""

    size: Annotated[int, Meta(ge=0)] = 100
    """Places in the line; when it is full, the answer is a 429 with Retry-After."""

    time: Seconds = 30
    """Seconds after which a place is given up, with a 503 and Retry-After."""


class UpstreamTls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """HTTPS to an upstream, where the system's authorities are not enough."""

    ca: str = ""
    """File with the authorities to trust, PEM; empty: the system's."""

    certificate: str = ""
    """File with a client certificate, PEM."""

    key: str = ""
    """File with its private key, PEM; empty: it stands in `certificate`."""

    verify: bool = True
    """false: anybody may pose as this upstream, and reads key and prompts."""


class Upstream(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint that answers."""

    url: str
    """Base URL, the part before /chat/completions: http://127.0.0.1:8000/v1. `demo:` is the model in the program."""

    key: str = ""
    """Sent as `Authorization: Bearer KEY`; empty: none is sent. Better as ${VARIABLE} than in the file."""

    pass_key: bool = False
    """The client's own Authorization header goes to this upstream, instead of `key`: whoever runs it sees that key."""

    headers: dict[str, str] = {}
    """Further headers of each request to this upstream."""

    body: dict[str, Any] = {}
    """Further fields of each request body, as they are: top_k, chat_template_kwargs. They win over everything."""

    forward_headers: list[str] = []
    """Names of client headers that are passed on; all others are not."""

    dialect: str = "chat"
    """How the upstream is spoken to: a module in proxy/dialects."""

    profile: ProfileChoice = ProfileChoice(base="generic")
    """Which product it is: a name, or a mapping with `base` and the fields that differ (proxy/core/profile.py)."""

    # These two are complete after `load`.
    timeouts: Timeouts = Timeouts()
    """What is given here replaces the global value."""

    max_requests: Count | None = None
    """Requests that it gets at a time, the others wait; null: no limit. An engine's batch size is a good value."""

    waiting: Waiting = Waiting()
    """How many may wait for it, and how long."""

    health: Health = Health()
    """What is given here replaces the global value."""

    tls: UpstreamTls | None = None
    """For https URLs; null: the system's authorities."""

    socket: str = ""
    """Path of a unix socket to connect to; the URL then only gives the host and the path that are asked for."""

    proxy: str = "environment"
    """An HTTP proxy on the way: its URL, `none`, or `environment` for HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""

    def __repr__(self) -> str:
        # It holds secrets.
        return f"Upstream(url={self.url!r}, dialect={self.dialect!r}, profile={self.profile!r})"


class Pool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Upstreams that serve the same models, and how one of them is chosen."""

    upstreams: Members
    """Names, or a mapping from names to weights; a weight is 1 where none is given."""

    policy: Literal["round_robin", "weighted", "least_loaded", "affinity"] = "affinity"
    """affinity: who has asked before, or begins alike, goes to the same upstream, whose prefix cache is warm then,
    unless it has much more to do than the others. least_loaded: the less busy of two taken at random. weighted: in
    turn, by weight. round_robin: in turn, whatever the weights."""


class Route(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which upstreams serve a model name, and how."""

    model: str
    """Exact name, or a pattern with * (any characters) and ? (one)."""

    aliases: list[str] = []
    """Further names, or patterns, of the same."""

    pools: list[str] = []
    """Names of pools, asked in this order: the later ones when the earlier ones fail or are full."""

    upstreams: list[str] = []
    """Instead of pools: upstreams, asked in this order."""

    upstream_model: str | None = None
    """What the upstreams call the model; null: as the client does."""

    profile: ProfileChoice = ProfileChoice()
    """As in an upstream, and wins over it; a mapping without `base` changes fields of the upstream's profile."""

    reasoning_output: Literal["auto", "content", "summary", "both", "hidden"] = "auto"
    """Where in a reasoning item the model's reasoning goes; auto: summary if the client asks for one, else content."""

    defaults: Parameters = field(default_factory=Parameters)
    """Request parameters for clients that say nothing of them: temperature, max_output_tokens, reasoning ..."""

    overrides: Parameters = field(default_factory=Parameters)
    """Request parameters that replace what the client says."""

    body: dict[str, Any] = {}
    """Further fields of each request body, as an upstream's; those of the upstream win over them."""

    pass_fields: list[str] = []
    """Fields that the Responses API does not know and that go on as they are: seed, stop, top_k."""

    max_output_tokens: Count | None = None
    """A request for more is answered with a 400; one that says nothing gets this."""

    max_input: Size | None = None
    """A larger request body is answered with a 400, `context_length_exceeded`; bytes, or with KiB, MiB."""

    long_context: str = ""
    """Name of a pool with a larger context window, which is asked when a prompt is too long for the others."""

    endpoints: tuple[str, ...] = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
    """Other endpoints that pass through unchanged, by the `model` of their JSON body.

    Their requests know nothing of `defaults`, `overrides`, `body`, `pass_fields` and `max_output_tokens`.
    """


class Key(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A client's key. Its limits count per process as long as no store is shared."""

    name: str
    """For logs and metrics."""

    hash: KeyHash
    """`python -m proxy key` makes a key and prints this for it."""

    models: tuple[str, ...] = ("*",)
    """Names and patterns of the models that it may ask for; for others it gets a 403."""

    requests_per_minute: Count | None = None
    """null: no limit."""

    tokens_per_minute: Count | None = None
    """Of input and output together, as upstreams report them; null: no limit."""

    streams: Count | None = None
    """Requests under way at a time; null: no limit."""


class Retries(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Failures before the first delta that another try may cure: no connection, 408, 429, 5xx."""

    attempts: Count = 3
    """Tries for one request, the first one included; upstreams that can't be connected to do not count."""

    backoff: Seconds = 0.25
    """Seconds before the first further try at the same upstream, doubled for each one after it; with jitter."""

    max_backoff: Seconds = 5
    """Seconds; also the longest Retry-After that is waited for."""

    budget: Annotated[float, Meta(ge=0, le=1)] = 0.2
    """So large a share of a pool's requests of the last seconds may be further tries, so that a fault is no storm."""

    reserve: Annotated[int, Meta(ge=0)] = 10
    """So many further tries in ten seconds are allowed in any case."""


class Stream(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The event stream to the client; times in seconds."""

    accept_wait: Annotated[float, Meta(ge=0)] = 10
    """So long the 200 is held back for the upstream's status. Then it goes out, and an error becomes an event."""

    keep_alive: Seconds = 15
    """A comment is sent after so much silence. Load balancers often close at 60."""

    progress: Seconds = 120
    """response.in_progress is sent again after so long without an event, for clients to whom a comment is no life."""

    send_timeout: Seconds = 120
    """A client that takes nothing for so long is dropped, and its upstream closed."""

    done: bool = True
    """`data: [DONE]` ends the stream."""


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes, in bytes or as "64 MiB"; each is memory that one request can take."""

    body: Size = Size(64 << 20)
    """A client's request, decompressed; larger ones get a 413."""

    event: Size = Size(16 << 20)
    """One event of an upstream, or an answer that is no stream; a larger one fails the response."""


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is written to standard error."""

    format: Literal["text", "json"] = "text"
    """For people, or one JSON object a line."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """info: a line per request. debug: events too, without what they say."""

    bodies: bool = False
    """Prompts and answers are logged. They may be private: not for production."""


class Metrics(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prometheus metrics at /metrics."""

    enabled: bool = True
    """false: none are kept."""

    open: bool = True
    """Everybody who reaches the proxy may read them; false: only with an admin key."""


class Otel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Traces by OpenTelemetry, over OTLP and HTTP; needs the extra `otel`."""

    endpoint: str
    """Where they go: http://127.0.0.1:4318/v1/traces."""

    service: str = "responses-proxy"
    """service.name of the spans."""

    headers: dict[str, str] = {}
    """Headers for the collector."""

    ratio: Annotated[float, Meta(ge=0, le=1)] = 1
    """The share of requests that are traced, when the client's traceparent does not say."""

    def __repr__(self) -> str:
        # The headers may be secrets.
        return f"Otel(endpoint={self.endpoint!r})"


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. Paths in it are seen from its folder."""

    upstreams: Annotated[dict[str, Upstream], Meta(min_length=1)]
    """The endpoints by a name of your choice, at least one."""

    listen: Listen = Listen()
    pools: dict[str, Pool] = {}
    """Upstreams that serve the same models, by a name of your choice."""

    routes: list[Route] = []
    """Looked through in order. Without any, every model goes to all upstreams in the order of the file."""

    keys: list[Key] = []
    """The clients' keys. Without any, everybody who reaches the proxy may use it: see `open`."""

    keys_file: str = ""
    """A YAML file with further keys, a list as in `keys`, at least one; looked at again when it changes."""

    admin_keys: list[KeyHash] = []
    """Hashes of the keys for /admin, which open nothing else; without any, there is no /admin."""

    open: bool = False
    """true: without keys, other machines are served too. They use your upstreams' keys."""

    timeouts: Timeouts = Timeouts()
    health: Health = Health()
    retries: Retries = Retries()
    stream: Stream = Stream()
    limits: Limits = Limits()
    log: Log = Log()
    metrics: Metrics = Metrics()
    otel: Otel | None = None
    """Traces; null: none."""

    models_cache: Annotated[float, Meta(ge=0)] = 60
    """Seconds for which an upstream's list of models is kept."""

    drain: Annotated[float, Meta(ge=0)] = 30
    """Seconds that open streams have left after SIGTERM or Ctrl-C; then they end with response.failed."""

    watch: bool = True
    """The files are read again when they change; SIGHUP does it in any case."""

    workers: Count = 1
    """Processes, which share the port; more than one need the same number of cores."""

    loop: Literal["auto", "uvloop", "asyncio"] = "auto"
    """The event loop; auto: uvloop where it is installed (it takes less CPU), else asyncio."""

    strict: bool = False
    """Parameters that an upstream can't be told are refused with a 400, and not dropped and named in a header."""
