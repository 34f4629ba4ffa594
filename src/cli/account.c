// SPDX-License-Identifier: Apache-2.0
#include "cli/account.h"

#include "bytes.h"
#include "cli/json_file.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#define URL_BYTES_MAX 1024
#define HOST_BYTES_MAX 255

static void drop_token(struct account *a)
{
	if (a->token)
		explicit_bzero(a->token, strlen(a->token));
	free(a->token);
	a->token = NULL;
}

void account_done(struct account *a)
{
	free(a->url);
	free(a->user);
	free(a->device);
	free(a->device_id);
	drop_token(a);
	free(a->ca_file);
	*a = (struct account){ 0 };
}

static int from_json(const json_t *object, struct account *ret)
{
	int r = json_text_copy(object, "url", &ret->url);

	if (r == 0)
		r = json_text_copy(object, "user", &ret->user);
	if (r == 0)
		r = json_text_copy(object, "device", &ret->device);
	if (r == 0)
		r = json_text_copy(object, "device_id", &ret->device_id);
	if (r == 0 && json_object_get(object, "token"))
		r = json_text_copy(object, "token", &ret->token);
	if (r == 0 && json_get_path(object, "ca_file", &ret->ca_file) == -ENOMEM)
		r = -ENOMEM;
	return r;
}

int account_load(const struct home *h, struct account *ret, struct err *err)
{
	_cleanup_free_ char *path = path_join(h->config, "account.json");
	_cleanup_account_ struct account a = { 0 };
	_cleanup_json_ json_t *object = NULL;
	int r = path ? json_file_load(path, &object, err) : err_sys(err, ENOMEM, "account");

	if (r <= 0)
		return r;
	r = from_json(object, &a);
	if (r < 0)
		return err_set(err, -r, "%s lacks a field; log in again: varve login", path);
	*ret = a;
	a = (struct account){ 0 };
	return 1;
}

int account_require(const struct home *h, struct account *ret, struct err *err)
{
	_cleanup_account_ struct account a = { 0 };
	int r = account_load(h, &a, err);

	if (r < 0)
		return r;
	if (!a.token)
		return err_set(err, ENOENT,
			"this device is not logged in; log in first: varve login URL --user NAME");
	*ret = a;
	a = (struct account){ 0 };
	return 0;
}

int account_save(const struct home *h, const struct account *a, struct err *err)
{
	_cleanup_free_ char *path = path_join(h->config, "account.json");
	_cleanup_json_ json_t *object = json_pack("{s:s, s:s, s:s, s:s, s:s*}", "url", a->url,
		"user", a->user, "device", a->device, "device_id", a->device_id, "token", a->token);
	int r = home_make_dir(h->config, err);

	if (r < 0)
		return r;
	if (!path || !object)
		return err_sys(err, ENOMEM, "account");
	if (a->ca_file && json_set_path(object, "ca_file", a->ca_file) < 0)
		return err_sys(err, ENOMEM, "account");
	return json_file_save(path, object, err);
}

int account_log_out(const struct home *h, struct account *a, struct err *err)
{
	drop_token(a);
	return account_save(h, a, err);
}

static int bad_url(struct err *err, const char *text, const char *why)
{
	return err_set(err, EINVAL, "'%s': %s; write it like https://host:port", text, why);
}

/* The length of "http://" or "https://" at the start, 0 for neither. */
static size_t scheme_length(const char *url)
{
	if (strncasecmp(url, "https://", 8) == 0)
		return 8;
	return strncasecmp(url, "http://", 7) == 0 ? 7 : 0;
}

/* The host's end: the port's colon, the path's slash, or the end. NULL when it is malformed. */
static const char *host_end(const char *host)
{
	const char *end;

	if (*host != '[')
		return host + strcspn(host, ":/");
	end = strchr(host, ']');
	return end ? end + 1 : NULL;
}

static bool port_valid(const char *colon)
{
	char *end;
	unsigned long port;

	if (*colon != ':')
		return true;
	port = isdigit((unsigned char)colon[1]) ? strtoul(colon + 1, &end, 10) : 0;
	return port > 0 && port <= 65535 && (*end == '\0' || *end == '/');
}

static const char *url_fault(const char *url)
{
	size_t scheme = scheme_length(url);
	const char *end = scheme ? host_end(url + scheme) : NULL;

	if (strlen(url) > URL_BYTES_MAX)
		return "the URL is too long";
	for (const char *s = url; *s; s++) {
		if ((unsigned char)*s <= ' ' || (unsigned char)*s >= 0x7f)
			return "a URL has no blanks and no special characters";
	}
	if (!scheme)
		return "the URL has neither http:// nor https:// in front";
	if (strpbrk(url, "@?#\\"))
		return "a server's URL has no user, query or fragment";
	if (!end || end == url + scheme || end - (url + scheme) > HOST_BYTES_MAX)
		return "the host is missing or malformed";
	if (*end && *end != ':' && *end != '/')
		return "the host is malformed";
	return port_valid(end) ? NULL : "the port is no number from 1 to 65535";
}

int server_url_parse(const char *text, char **ret, struct err *err)
{
	const char *fault = url_fault(text);
	_cleanup_free_ char *url = NULL;
	size_t n;

	if (fault)
		return bad_url(err, text, fault);
	url = strdup(text);
	if (!url)
		return err_sys(err, ENOMEM, "%s", text);
	n = strlen(url);
	while (url[n - 1] == '/')
		url[--n] = '\0';
	for (char *s = url; *s != ':'; s++)
		*s = (char)tolower((unsigned char)*s);
	*ret = steal(url);
	return 0;
}

static bool host_is_loopback(const char *host)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (strcasecmp(host, "localhost") == 0)
		return true;
	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

bool server_url_exposes(const char *url)
{
	const char *host = url + scheme_length(url), *end = host_end(host);
	char name[HOST_BYTES_MAX + 1];
	size_t n = end ? (size_t)(end - host) : 0;

	if (strncasecmp(url, "http://", 7) != 0)
		return false;
	if (*host == '[' && n >= 2) {
		host++;
		n -= 2;
	}
	if (n == 0 || n >= sizeof name)
		return true;
	memcpy(name, host, n);
	name[n] = '\0';
	return !host_is_loopback(name);
}
