/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cleanup attributes, so that a resource is released on every path out of its scope.
 *
 *	_cleanup_free_ char *path = strdup(p);
 *	...
 *	*ret_path = steal(path);	// moved out: not freed here
 *
 * A module with a life cycle of its own defines its macro beside its _free().
 */
#ifndef VARVE_CLEANUP_H
#define VARVE_CLEANUP_H

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(fn) __attribute__((cleanup(fn)))
#define must_check __attribute__((warn_unused_result))

static inline void cleanup_free_p(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_close_p(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_fclose_p(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline void cleanup_closedir_p(DIR **d)
{
	if (*d)
		closedir(*d);
}

static inline pthread_mutex_t *lock_mutex(pthread_mutex_t *m)
{
	pthread_mutex_lock(m);
	return m;
}

static inline void cleanup_unlock_p(pthread_mutex_t **m)
{
	if (*m)
		pthread_mutex_unlock(*m);
}

#define _cleanup_free_ _cleanup_(cleanup_free_p)
#define _cleanup_close_ _cleanup_(cleanup_close_p)
#define _cleanup_fclose_ _cleanup_(cleanup_fclose_p)
#define _cleanup_closedir_ _cleanup_(cleanup_closedir_p)

#define CLEANUP_JOIN2(a, b) a##b
#define CLEANUP_JOIN(a, b) CLEANUP_JOIN2(a, b)

/* Holds the mutex until the end of the enclosing scope. */
#define SCOPED_LOCK(m)                                                                    \
	__attribute__((cleanup(cleanup_unlock_p), unused)) pthread_mutex_t *CLEANUP_JOIN( \
		scoped_lock_, __LINE__) = lock_mutex(m)

/* Moves a pointer out of a variable that has a cleanup. */
#define steal(p)                             \
	({                                   \
		__typeof__(p) stolen_ = (p); \
		(p) = NULL;                  \
		stolen_;                     \
	})

#define steal_fd(fd)                \
	({                          \
		int stolen_ = (fd); \
		(fd) = -1;          \
		stolen_;            \
	})

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#ifndef MIN
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#endif

#endif
