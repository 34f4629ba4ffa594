// SPDX-License-Identifier: Apache-2.0
#include "httpd.h"

#include "bounds.h"
#include "clock.h"
#include "log.h"
#include "patience.h"
#include "request_head.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdatomic.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>

/* Memory of a connection for its request line and headers, and its window for bodies. */
#define CONNECTION_BYTES ((size_t)64 * 1024)
/* A token, a few numbers, and what browsers and proxies add. */
#define HEADER_BYTES_MAX ((size_t)16 * 1024)
#define URL_BYTES_MAX ((size_t)2048)
/* Descriptors that are not connections: databases, blobs, logs. */
#define OTHER_FDS 256
#define CONNECTIONS_MAX 16384
/* Requests' bodies and answers in memory, all together. */
#define MEMORY_BYTES_MAX ((size_t)(512 * MIB))
#define THREADS 2
/* What a refused body may still send before the connection is cut. */
#define DISCARD_BYTES_MAX ((size_t)(8 * MIB))

#define HEADERS_MS (20 * MS_PER_S)
#define IDLE_MS (75 * MS_PER_S)
/* A body, in either direction, is given this, and time for its bytes at the lowest rate. */
#define TRANSFER_MS (30 * MS_PER_S)
#define BYTES_PER_S_MIN (32 * (int64_t)KIB)

#define ANSWER_HEADERS_MAX 4
#define ANSWER_VALUE_BYTES 80

enum stage {
	STAGE_HEADERS,
	STAGE_HELD,
	STAGE_BODY,
	STAGE_DISCARD, /* the rest of a body that was refused */
	STAGE_RUNNING,
};

struct answer_header {
	const char *name;
	char value[ANSWER_VALUE_BYTES];
};

struct exchange {
	struct httpd *h;
	struct MHD_Connection *connection;
	struct patience_entry *patience;
	enum stage stage;
	enum httpd_next next; /* after a hold */
	const char *method;
	char *path;
	char peer[INET6_ADDRSTRLEN];
	uint64_t body_length;
	size_t body_max;
	size_t discarded;
	size_t reserved; /* of h->memory */
	struct buf body;
	void *data;
	bool begun;

	unsigned status; /* 0: no answer yet */
	const char *type;
	struct buf answer;
	struct answer_header headers[ANSWER_HEADERS_MAX];
	size_t n_headers;
	bool close;
};

struct httpd {
	struct MHD_Daemon *daemon;
	struct httpd_calls calls;
	struct patience *patience;
	atomic_size_t memory;
	pthread_mutex_t lock;
	pthread_cond_t less;
	size_t suspended;
	size_t exchanges;
	bool stopping;
	bool drained; /* nothing is suspended any more */
	int listen_fd;
};

/* --- the exchange --- */

const char *exchange_method(const struct exchange *x)
{
	return x->method;
}

const char *exchange_path(const struct exchange *x)
{
	return x->path;
}

const char *exchange_header(const struct exchange *x, const char *name)
{
	return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

const char *exchange_argument(const struct exchange *x, const char *name)
{
	return MHD_lookup_connection_value(x->connection, MHD_GET_ARGUMENT_KIND, name);
}

const char *exchange_peer(const struct exchange *x)
{
	return x->peer;
}

uint64_t exchange_body_length(const struct exchange *x)
{
	return x->body_length;
}

const struct buf *exchange_body(const struct exchange *x)
{
	return &x->body;
}

void exchange_set_data(struct exchange *x, void *data)
{
	x->data = data;
}

void *exchange_data(const struct exchange *x)
{
	return x->data;
}

void exchange_set_body_max(struct exchange *x, size_t n)
{
	x->body_max = n;
}

static void account(struct exchange *x, size_t n)
{
	atomic_fetch_add(&x->h->memory, n);
	x->reserved += n;
}

bool exchange_reserve(struct exchange *x)
{
	account(x, MIN(x->body_length, x->body_max));
	return atomic_load(&x->h->memory) <= MEMORY_BYTES_MAX;
}

void exchange_answer(struct exchange *x, unsigned status, const char *type, struct buf *body)
{
	assert(x->status == 0);
	x->status = status;
	x->type = type;
	if (body) {
		x->answer = *body;
		*body = (struct buf){ 0 };
		account(x, x->answer.len);
	}
}

void exchange_answer_header(struct exchange *x, const char *name, const char *value)
{
	struct answer_header *h = &x->headers[x->n_headers];

	assert(x->n_headers < ANSWER_HEADERS_MAX && strlen(value) < sizeof h->value);
	h->name = name;
	strcpy(h->value, value);
	x->n_headers++;
}

void exchange_close_after(struct exchange *x)
{
	x->close = true;
}

/* --- suspending --- */

/* False when the server has stopped: nobody is left to work on it. */
static bool suspend(struct exchange *x, enum stage stage)
{
	SCOPED_LOCK(&x->h->lock);
	if (x->h->drained)
		return false;
	x->stage = stage;
	x->h->suspended++;
	patience_set(x->h->patience, x->patience, PATIENCE_ENDLESS);
	MHD_suspend_connection(x->connection);
	return true;
}

static void resume(struct exchange *x)
{
	struct httpd *h = x->h;

	/* From here on x can be gone at any time. */
	MHD_resume_connection(x->connection);
	pthread_mutex_lock(&h->lock);
	h->suspended--;
	pthread_cond_broadcast(&h->less);
	pthread_mutex_unlock(&h->lock);
}

void exchange_go_on(struct exchange *x, enum httpd_next next)
{
	assert(x->stage == STAGE_HELD && next != HTTPD_HOLD);
	x->next = next;
	resume(x);
}

void exchange_done(struct exchange *x)
{
	assert(x->stage == STAGE_RUNNING && x->status);
	resume(x);
}

/* --- what libmicrohttpd calls --- */

static int64_t transfer_ms(uint64_t bytes)
{
	return TRANSFER_MS + (int64_t)(bytes / BYTES_PER_S_MIN) * MS_PER_S;
}

static void add_header(struct MHD_Response *r, const char *name, const char *value)
{
	/* It fails when out of memory, and then the answer is worth more without than none. */
	(void)MHD_add_response_header(r, name, value);
}

static enum MHD_Result send_answer(struct exchange *x)
{
	static char nothing[1];
	size_t n = x->answer.len;
	bool owned = x->answer.data;
	struct MHD_Response *r =
		MHD_create_response_from_buffer(n, owned ? (void *)x->answer.data : nothing,
			owned ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
	enum MHD_Result queued;

	if (!r)
		return MHD_NO;
	x->answer = (struct buf){ 0 };
	if (x->type)
		add_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, x->type);
	add_header(r, "X-Content-Type-Options", "nosniff");
	add_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	for (size_t i = 0; i < x->n_headers; i++)
		add_header(r, x->headers[i].name, x->headers[i].value);
	if (x->close)
		add_header(r, MHD_HTTP_HEADER_CONNECTION, "close");
	queued = MHD_queue_response(x->connection, x->status, r);
	MHD_destroy_response(r);
	patience_set(x->h->patience, x->patience, transfer_ms(n));
	return queued;
}

static void answer_error(struct exchange *x, unsigned status, const char *code, const char *detail)
{
	_cleanup_buf_ struct buf b = { 0 };

	/* Out of memory: the status alone tells. Both texts are literals without quotes. */
	if (buf_printf(&b, "{\"error\":\"%s\",\"detail\":\"%s\"}", code, detail) < 0)
		buf_clear(&b);
	exchange_answer(x, status, "application/json", &b);
}

static enum MHD_Result refuse(
	struct exchange *x, unsigned status, const char *code, const char *detail)
{
	answer_error(x, status, code, detail);
	x->close = true;
	return send_answer(x);
}

static enum MHD_Result refuse_stopping(struct exchange *x)
{
	return refuse(x, MHD_HTTP_SERVICE_UNAVAILABLE, "stopping",
		"the server is stopping; try again later");
}

static enum MHD_Result scan_header(void *arg, enum MHD_ValueKind kind, const char *name,
	size_t name_len, const char *value, size_t value_len)
{
	request_head_add(arg, name, name_len, value, value_len);
	return MHD_YES;
}

static void set_peer(struct exchange *x)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	const struct sockaddr *a = info ? info->client_addr : NULL;

	if (a && a->sa_family == AF_INET) {
		inet_ntop(AF_INET, &((const struct sockaddr_in *)a)->sin_addr, x->peer,
			sizeof x->peer);
	} else if (a && a->sa_family == AF_INET6) {
		struct in6_addr network = ((const struct sockaddr_in6 *)a)->sin6_addr;

		if (!IN6_IS_ADDR_V4MAPPED(&network))
			memset(network.s6_addr + 8, 0, 8);
		inet_ntop(AF_INET6, &network, x->peer, sizeof x->peer);
	}
}

static struct exchange *exchange_new(
	struct httpd *h, struct MHD_Connection *c, const char *method, const char *path)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct exchange *x = calloc(1, sizeof *x);

	if (!x)
		return NULL;
	x->path = strdup(path);
	if (!x->path || !info || !info->socket_context) {
		free(x->path);
		free(x);
		return NULL;
	}
	x->h = h;
	x->connection = c;
	x->patience = info->socket_context;
	x->method = method;
	set_peer(x);
	pthread_mutex_lock(&h->lock);
	h->exchanges++;
	pthread_mutex_unlock(&h->lock);
	return x;
}

/* Whether new requests are still taken. */
static bool taking(struct httpd *h)
{
	SCOPED_LOCK(&h->lock);
	return !h->stopping;
}

static enum MHD_Result proceed(struct exchange *x, enum httpd_next next)
{
	switch (next) {
	case HTTPD_ANSWER:
		/* What is left of the body must not be read as the next request. */
		x->close = x->close || x->body_length > 0;
		return send_answer(x);
	case HTTPD_BODY:
		x->stage = STAGE_BODY;
		patience_set(
			x->h->patience, x->patience, transfer_ms(MIN(x->body_length, x->body_max)));
		return MHD_YES;
	case HTTPD_HOLD:
		if (!suspend(x, STAGE_HELD))
			return refuse_stopping(x);
		x->h->calls.held(x->h->calls.ctx, x);
		return MHD_YES;
	}
	return MHD_NO;
}

static enum MHD_Result on_headers(struct exchange *x, const char *version)
{
	struct request_head head = { 0 };
	const char *why;

	MHD_get_connection_values_n(x->connection, MHD_HEADER_KIND, scan_header, &head);
	why = request_head_check(&head, version, &x->body_length);
	if (why)
		return refuse(x, MHD_HTTP_BAD_REQUEST, "bad_request", why);
	if (head.bytes > HEADER_BYTES_MAX)
		return refuse(x, MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large",
			"the headers are too long");
	if (strlen(x->path) > URL_BYTES_MAX)
		return refuse(x, MHD_HTTP_URI_TOO_LONG, "url_too_long", "the URL is too long");
	if (!taking(x->h))
		return refuse_stopping(x);
	x->begun = true;
	return proceed(x, x->h->calls.begin(x->h->calls.ctx, x));
}

static enum MHD_Result on_body(struct exchange *x, const char *p, size_t *n)
{
	size_t had = x->body.len, take = *n;

	*n = 0;
	if (x->stage == STAGE_DISCARD) {
		x->discarded += take;
		return x->discarded <= DISCARD_BYTES_MAX ? MHD_YES : MHD_NO;
	}
	if (take > x->body_max - had) {
		x->stage = STAGE_DISCARD;
		answer_error(x, MHD_HTTP_CONTENT_TOO_LARGE, "too_large", "the body is too long");
		buf_done(&x->body);
		return MHD_YES;
	}
	if (had == 0 && x->body_length != UINT64_MAX && buf_reserve(&x->body, x->body_length) < 0)
		return MHD_NO;
	return buf_append(&x->body, p, take) < 0 ? MHD_NO : MHD_YES;
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *c, const char *path,
	const char *method, const char *version, const char *body, size_t *body_len, void **state)
{
	struct exchange *x = *state;

	if (!x) {
		x = exchange_new(ctx, c, method, path);
		*state = x;
		return x ? on_headers(x, version) : MHD_NO;
	}
	switch (x->stage) {
	case STAGE_HELD:
		return proceed(x, x->next);
	case STAGE_BODY:
	case STAGE_DISCARD:
		if (*body_len)
			return on_body(x, body, body_len);
		if (x->status)
			return send_answer(x);
		if (!suspend(x, STAGE_RUNNING))
			return refuse_stopping(x);
		x->h->calls.run(x->h->calls.ctx, x);
		return MHD_YES;
	case STAGE_RUNNING:
		return send_answer(x);
	case STAGE_HEADERS:
		break;
	}
	return MHD_NO;
}

static void on_over(
	void *ctx, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode why)
{
	struct exchange *x = *state;
	struct httpd *h = ctx;

	if (!x)
		return;
	*state = NULL;
	if (x->begun)
		h->calls.over(h->calls.ctx, x);
	patience_set(h->patience, x->patience, IDLE_MS);
	atomic_fetch_sub(&h->memory, x->reserved);
	buf_done(&x->body);
	buf_done(&x->answer);
	free(x->path);
	free(x);
	pthread_mutex_lock(&h->lock);
	h->exchanges--;
	pthread_cond_broadcast(&h->less);
	pthread_mutex_unlock(&h->lock);
}

static void on_connection(
	void *ctx, struct MHD_Connection *c, void **state, enum MHD_ConnectionNotificationCode what)
{
	struct httpd *h = ctx;
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);

	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		struct patience_entry *e = calloc(1, sizeof *e);

		/* Without one, its first request is dropped (exchange_new()). */
		if (e && info)
			patience_add(h->patience, e, info->connect_fd, HEADERS_MS);
		*state = info ? e : NULL;
		return;
	}
	if (*state)
		patience_remove(h->patience, *state);
	free(*state);
	*state = NULL;
}

__attribute__((format(printf, 2, 0))) static void on_log(void *ctx, const char *format, va_list ap)
{
	char text[256];
	int n = vsnprintf(text, sizeof text, format, ap);

	for (n = MIN(n, (int)sizeof text - 1); n > 0 && isspace((unsigned char)text[n - 1]);)
		text[--n] = '\0';
	log_debug("http: %s", text);
}

/* --- the server --- */

static unsigned connection_limit(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return 512;
	l.rlim_cur = l.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &l) < 0)
		getrlimit(RLIMIT_NOFILE, &l);
	if (l.rlim_cur <= 2 * OTHER_FDS)
		return 64;
	return (unsigned)MIN(l.rlim_cur - OTHER_FDS, (rlim_t)CONNECTIONS_MAX);
}

/* An encoded NUL stays as it is: decoded, it would hide from the rules what is behind it. */
static size_t unescape(void *ctx, struct MHD_Connection *connection, char *s)
{
	return strstr(s, "%00") ? strlen(s) : MHD_http_unescape(s);
}

static struct MHD_Daemon *start_daemon(struct httpd *h, const struct httpd_options *o)
{
	unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME |
			 MHD_USE_ERROR_LOG | (o->cert_pem ? MHD_USE_TLS : 0);
	struct MHD_OptionItem tls[] = {
		{ MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)o->cert_pem },
		{ MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)o->key_pem },
		{ MHD_OPTION_HTTPS_PRIORITIES, 0,
			(void *)(uintptr_t) "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2" },
		{ MHD_OPTION_END, 0, NULL },
	};
	struct MHD_OptionItem none[] = { { MHD_OPTION_END, 0, NULL } };

	return MHD_start_daemon(flags, 0, NULL, NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER,
		on_log, h, MHD_OPTION_LISTEN_SOCKET, o->listen_fd, MHD_OPTION_NOTIFY_COMPLETED,
		on_over, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
		MHD_OPTION_THREAD_POOL_SIZE, (unsigned)THREADS, MHD_OPTION_CONNECTION_LIMIT,
		connection_limit(), MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_BYTES,
		MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_UNESCAPE_CALLBACK, unescape, h,
		MHD_OPTION_ARRAY, o->cert_pem ? tls : none, MHD_OPTION_END);
}

int httpd_new(const struct httpd_options *o, struct httpd **ret, struct err *err)
{
	struct httpd *h = calloc(1, sizeof *h);
	int r;

	if (!h)
		return err_sys(err, ENOMEM, "http");
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->less, NULL);
	h->calls = o->calls;
	h->listen_fd = -1;
	r = patience_new(&h->patience);
	if (r < 0) {
		err_sys(err, -r, "http");
		httpd_free(h);
		return r;
	}
	h->daemon = start_daemon(h, o);
	if (!h->daemon) {
		httpd_free(h);
		return err_set(err, EIO, "the HTTP server does not start%s",
			o->cert_pem ? "; certificate or key are not usable" : "");
	}
	*ret = h;
	return 0;
}

void httpd_quiesce(struct httpd *h)
{
	pthread_mutex_lock(&h->lock);
	h->stopping = true;
	pthread_mutex_unlock(&h->lock);
	h->listen_fd = MHD_quiesce_daemon(h->daemon);
}

void httpd_drain(struct httpd *h, int64_t timeout_ms)
{
	int64_t at = clock_mono_ms() + timeout_ms;
	struct timespec until = { at / MS_PER_S, at % MS_PER_S * NS_PER_MS };
	SCOPED_LOCK(&h->lock);

	while (h->suspended)
		pthread_cond_wait(&h->less, &h->lock);
	while (h->exchanges &&
		pthread_cond_clockwait(&h->less, &h->lock, CLOCK_MONOTONIC, &until) == 0)
		;
	/* One that was held may have gone on to its body, and be run now. */
	while (h->suspended)
		pthread_cond_wait(&h->less, &h->lock);
	h->drained = true;
}

void httpd_free(struct httpd *h)
{
	if (!h)
		return;
	if (h->daemon)
		MHD_stop_daemon(h->daemon);
	if (h->listen_fd >= 0)
		close(h->listen_fd);
	patience_free(h->patience);
	pthread_cond_destroy(&h->less);
	pthread_mutex_destroy(&h->lock);
	free(h);
}
