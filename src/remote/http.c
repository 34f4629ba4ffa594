// SPDX-License-Identifier: Apache-2.0
#include "remote/http.h"

#include "clock.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_TIMEOUT_MS 10000L
/* Less than a byte a second for this long is a dead line. */
#define STALL_S 30L
/* A peer that vanished (sleep, a cut) is noticed after about KEEPALIVE_IDLE_S + 3 tries. */
#define KEEPALIVE_IDLE_S 15L
#define KEEPALIVE_STEP_S 5L
/* How often a cancelled flag, which nobody announces, is looked at. */
#define CANCEL_STEP_MS 20
/* Connections kept for later: push, two uploads, the feed, four fetches. */
#define IDLE_SLOTS_MAX 8
#define RECEIVE_BUFFER_BYTES (256L * 1024)
#define UPLOAD_BUFFER_BYTES (256L * 1024)

/* A curl handle with its connection, and the request that it runs. */
struct slot {
	struct slot *next;
	struct http *http;
	CURLM *multi;
	CURL *easy;
	struct buf *body;
	size_t max_bytes;
	bool too_large;
	bool sent_some;
	char complaint[CURL_ERROR_SIZE];
};

struct http {
	char *url;
	char *ca_file;
	pthread_mutex_t lock; /* the lists below */
	struct slot *idle;
	size_t n_idle;
	struct slot *busy;
	atomic_bool stopped;
	atomic_uint_fast64_t sent;
	atomic_uint_fast64_t received;
	_Atomic int64_t last_contact_ns;
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void start_curl(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

static bool url_known(const char *url)
{
	return strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0;
}

int http_new(const struct http_options *o, struct http **ret, struct err *err)
{
	struct http *h;
	size_t n = strlen(o->url);

	if (!url_known(o->url))
		return err_set(err, EINVAL, "%s: not an http:// or https:// address", o->url);
	pthread_once(&curl_once, start_curl);
	while (n && o->url[n - 1] == '/')
		n--;
	h = calloc(1, sizeof *h);
	if (!h)
		return err_sys(err, ENOMEM, "http");
	pthread_mutex_init(&h->lock, NULL);
	h->url = strndup(o->url, n);
	h->ca_file = o->ca_file ? strdup(o->ca_file) : NULL;
	if (!h->url || (o->ca_file && !h->ca_file)) {
		http_free(h);
		return err_sys(err, ENOMEM, "http");
	}
	*ret = h;
	return 0;
}

static void slot_free(struct slot *s)
{
	if (!s)
		return;
	if (s->easy)
		curl_easy_cleanup(s->easy);
	if (s->multi)
		curl_multi_cleanup(s->multi);
	free(s);
}

void http_free(struct http *h)
{
	if (!h)
		return;
	while (h->idle) {
		struct slot *s = h->idle;

		h->idle = s->next;
		slot_free(s);
	}
	pthread_mutex_destroy(&h->lock);
	free(h->url);
	free(h->ca_file);
	free(h);
}

void http_stop(struct http *h)
{
	SCOPED_LOCK(&h->lock);
	atomic_store(&h->stopped, true);
	for (struct slot *s = h->busy; s; s = s->next)
		curl_multi_wakeup(s->multi);
}

void http_get_counts(struct http *h, struct http_counts *ret)
{
	*ret = (struct http_counts){ .bytes_sent = atomic_load(&h->sent),
		.bytes_received = atomic_load(&h->received),
		.last_contact_ns = atomic_load(&h->last_contact_ns) };
}

static struct slot *slot_new(struct http *h)
{
	struct slot *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->http = h;
	s->multi = curl_multi_init();
	s->easy = curl_easy_init();
	if (s->multi && s->easy)
		return s;
	slot_free(s);
	return NULL;
}

/* The most recently used connection is the likeliest to be alive. */
static struct slot *slot_take(struct http *h)
{
	struct slot *s;

	pthread_mutex_lock(&h->lock);
	s = h->idle;
	if (s) {
		h->idle = s->next;
		h->n_idle--;
	}
	pthread_mutex_unlock(&h->lock);
	if (!s)
		s = slot_new(h);
	if (!s)
		return NULL;
	SCOPED_LOCK(&h->lock);
	s->next = h->busy;
	h->busy = s;
	return s;
}

static void slot_give(struct http *h, struct slot *s)
{
	struct slot **at;
	bool keep;

	pthread_mutex_lock(&h->lock);
	for (at = &h->busy; *at != s; at = &(*at)->next)
		;
	*at = s->next;
	keep = h->n_idle < IDLE_SLOTS_MAX;
	if (keep) {
		s->next = h->idle;
		h->idle = s;
		h->n_idle++;
	}
	pthread_mutex_unlock(&h->lock);
	if (!keep)
		slot_free(s);
}

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
	struct slot *s = ctx;

	n *= size;
	if (n > s->max_bytes - s->body->len) {
		s->too_large = true;
		return 0;
	}
	return buf_append(s->body, p, n) < 0 ? 0 : n;
}

/* The only place where curl tells every byte that crosses the line, headers too, just once. */
static int on_debug(CURL *easy, curl_infotype type, char *data, size_t n, void *ctx)
{
	struct slot *s = ctx;

	if (type == CURLINFO_HEADER_OUT || type == CURLINFO_DATA_OUT) {
		s->sent_some = true;
		atomic_fetch_add(&s->http->sent, n);
	} else if (type == CURLINFO_HEADER_IN || type == CURLINFO_DATA_IN) {
		atomic_fetch_add(&s->http->received, n);
	}
	return 0;
}

static int make_headers(const struct http_request *rq, struct curl_slist **ret)
{
	/* curl would ask first, for a large body, and wait a second for the answer. */
	struct curl_slist *list = curl_slist_append(NULL, "Expect:");

	for (size_t i = 0; list && rq->headers && rq->headers[i]; i++) {
		struct curl_slist *more = curl_slist_append(list, rq->headers[i]);

		if (!more) {
			curl_slist_free_all(list);
			return -ENOMEM;
		}
		list = more;
	}
	if (!list)
		return -ENOMEM;
	*ret = list;
	return 0;
}

static void set_line(struct slot *s, const struct http *h, const struct http_request *rq)
{
	curl_easy_setopt(s->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(s->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(s->easy, CURLOPT_USERAGENT, "varve/" VARVE_VERSION);
	curl_easy_setopt(s->easy, CURLOPT_TCP_NODELAY, 1L);
	curl_easy_setopt(s->easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(s->easy, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
	curl_easy_setopt(s->easy, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_STEP_S);
	curl_easy_setopt(s->easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	curl_easy_setopt(s->easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(s->easy, CURLOPT_LOW_SPEED_TIME, STALL_S + (long)rq->silence_ms / 1000);
	curl_easy_setopt(s->easy, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER_BYTES);
	curl_easy_setopt(s->easy, CURLOPT_UPLOAD_BUFFERSIZE, UPLOAD_BUFFER_BYTES);
	curl_easy_setopt(s->easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	if (h->ca_file)
		curl_easy_setopt(s->easy, CURLOPT_CAINFO, h->ca_file);
}

static void set_callbacks(struct slot *s)
{
	curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, s);
	curl_easy_setopt(s->easy, CURLOPT_DEBUGFUNCTION, on_debug);
	curl_easy_setopt(s->easy, CURLOPT_DEBUGDATA, s);
	curl_easy_setopt(s->easy, CURLOPT_VERBOSE, 1L);
	curl_easy_setopt(s->easy, CURLOPT_ERRORBUFFER, s->complaint);
	s->complaint[0] = '\0';
	s->too_large = false;
	s->sent_some = false;
}

static int set_request(struct slot *s, const struct http *h, const struct http_request *rq,
	struct curl_slist *headers)
{
	_cleanup_free_ char *url = NULL;
	CURLcode code;

	if (asprintf(&url, "%s%s", h->url, rq->path) < 0) {
		url = NULL;
		return -ENOMEM;
	}
	if (rq->body || strcmp(rq->method, "POST") == 0) {
		curl_easy_setopt(s->easy, CURLOPT_POST, 1L);
		curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)rq->body_len);
		curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, rq->body ? rq->body : "");
	}
	curl_easy_setopt(s->easy, CURLOPT_CUSTOMREQUEST, rq->method);
	curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, headers);
	code = curl_easy_setopt(s->easy, CURLOPT_URL, url);
	return code == CURLE_OUT_OF_MEMORY ? -ENOMEM : 0;
}

static int interrupted(const struct http *h, const struct http_request *rq, struct err *err)
{
	if (atomic_load(&h->stopped))
		return err_set(err, ECANCELED, "the program is ending");
	if (rq->cancelled && atomic_load(rq->cancelled))
		return err_sys(err, EINTR, "%s", h->url);
	if (clock_mono_ms() >= rq->deadline_mono_ms)
		return err_set(err, ETIMEDOUT, "%s: no answer in time", h->url);
	return 0;
}

static int wait_some(struct slot *s, const struct http_request *rq)
{
	int64_t left = rq->deadline_mono_ms - clock_mono_ms();
	int step = (int)MIN(MAX(left, 0), 1000);

	if (rq->cancelled)
		step = MIN(step, CANCEL_STEP_MS);
	return curl_multi_poll(s->multi, NULL, 0, step, NULL) == CURLM_OK ? 0 : -EIO;
}

static int run(struct slot *s, const struct http *h, const struct http_request *rq, struct err *err)
{
	for (;;) {
		int running, r = interrupted(h, rq, err);

		if (r < 0)
			return r;
		if (curl_multi_perform(s->multi, &running) != CURLM_OK)
			return err_set(err, EIO, "%s: the HTTP library failed", h->url);
		if (!running)
			return 0;
		r = wait_some(s, rq);
		if (r < 0)
			return err_set(err, EIO, "%s: the HTTP library failed", h->url);
	}
}

static CURLcode result_of(struct slot *s)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(s->multi, &left))) {
		if (m->msg == CURLMSG_DONE)
			return m->data.result;
	}
	return CURLE_RECV_ERROR;
}

static int errno_of(const struct slot *s, CURLcode code)
{
	switch (code) {
	case CURLE_OK:
		return 0;
	case CURLE_OUT_OF_MEMORY:
		return ENOMEM;
	case CURLE_OPERATION_TIMEDOUT:
		return ETIMEDOUT;
	case CURLE_WRITE_ERROR:
		return s->too_large ? EMSGSIZE : ENOMEM;
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_CONNECT:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_PROXY:
		return ENOTCONN;
	default:
		return EIO;
	}
}

static int complain(const struct slot *s, const struct http *h, CURLcode code, struct err *err)
{
	int e = errno_of(s, code);

	/*
	 * ENOTCONN promises that the server saw nothing of the request: not so when a kept
	 * connection broke and the new one, which curl tries by itself, failed.
	 */
	if (e == ENOTCONN && s->sent_some)
		e = EIO;
	if (e == ETIMEDOUT && !s->sent_some)
		e = ENOTCONN;
	if (e == 0)
		return 0;
	if (e == EMSGSIZE)
		return err_set(err, e, "%s: the answer is larger than it may be", h->url);
	return err_set(err, e, "%s: %s", h->url,
		s->complaint[0] ? s->complaint : curl_easy_strerror(code));
}

static void take_type(struct slot *s, struct http_response *ret)
{
	char *type = NULL;
	size_t i;

	curl_easy_getinfo(s->easy, CURLINFO_CONTENT_TYPE, &type);
	for (i = 0; type && type[i] && type[i] != ';' && type[i] != ' ' &&
		    i + 1 < sizeof ret->content_type;
		i++)
		ret->content_type[i] = (char)tolower((unsigned char)type[i]);
	ret->content_type[i] = '\0';
}

static int finish(struct slot *s, struct http *h, struct http_response *ret, struct err *err)
{
	CURLcode code = result_of(s);
	long status = 0;
	int r = complain(s, h, code, err);

	if (r < 0)
		return r;
	curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status < 200 || status > 599)
		return err_set(err, EIO, "%s: answers with status %ld", h->url, status);
	ret->status = (int)status;
	take_type(s, ret);
	atomic_store(&h->last_contact_ns, clock_real_ns());
	return 0;
}

static int perform(struct slot *s, struct http *h, const struct http_request *rq,
	struct http_response *ret, struct err *err)
{
	int r;

	if (curl_multi_add_handle(s->multi, s->easy) != CURLM_OK)
		return err_set(err, EIO, "%s: the HTTP library failed", h->url);
	r = run(s, h, rq, err);
	if (r == 0)
		r = finish(s, h, ret, err);
	curl_multi_remove_handle(s->multi, s->easy);
	return r;
}

static int do_on_slot(struct slot *s, struct http *h, const struct http_request *rq,
	struct http_response *ret, struct err *err)
{
	struct curl_slist *headers = NULL;
	int r;

	curl_easy_reset(s->easy);
	s->body = &ret->body;
	s->max_bytes = rq->max_response_bytes;
	set_line(s, h, rq);
	set_callbacks(s);
	r = make_headers(rq, &headers);
	if (r == 0)
		r = set_request(s, h, rq, headers);
	if (r == 0)
		r = perform(s, h, rq, ret, err);
	else
		err_sys(err, -r, "http");
	curl_slist_free_all(headers);
	return r;
}

int http_do(
	struct http *h, const struct http_request *rq, struct http_response *ret, struct err *err)
{
	_cleanup_response_ struct http_response response = { 0 };
	struct slot *s = slot_take(h);
	int r;

	if (!s)
		return err_sys(err, ENOMEM, "http");
	r = do_on_slot(s, h, rq, &response, err);
	slot_give(h, s);
	if (r < 0)
		return r;
	*ret = response;
	response = (struct http_response){ 0 };
	return 0;
}
