/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads that answer the kernel.
 *
 *	loop_new(fuse_session, &l); loop_run(l); ... loop_stop(l) from elsewhere; loop_free(l);
 *
 * One thread at a time reads the device: the reader. Most requests are answered in less time than
 * it takes to wake a thread, so the reader answers them itself and reads on; programs that ask
 * one thing after the other are served by one thread that stays awake for the next question.
 * Others come in where that would hold somebody up:
 *
 *	READING ──request──► answering it, still the reader ──done──► READING
 *	   │                        │
 *	   │ it may wait for a disk,│ it takes long: the standby has looked twice
 *	   │ or requests queue up   │ and found the same request
 *	   ▼                        ▼
 *	the reading is handed on; this thread answers, then waits for its turn to read
 *
 * While one request after the other waits for a disk, nothing is handed on: a crowd of threads
 * reads the device, each answers what it got, and one joins when all are at it. When a number of
 * requests did not wait it disperses, and one is the reader.
 */
#ifndef VARVE_LOOP_H
#define VARVE_LOOP_H

#include "cleanup.h"

#include <stdbool.h>

struct fuse_session;
struct loop;

int loop_new(struct fuse_session *se, struct loop **ret) must_check;
void loop_free(struct loop *l);
/* Serves until the file system is unmounted or loop_stop() is called; 0 or -errno. Once only. */
int loop_run(struct loop *l) must_check;
/* Any thread, also before loop_run(). Does not wait; requests being answered are finished. */
void loop_stop(struct loop *l);
/*
 * For who answers a request, before something that waits for a disk: if the calling thread is the
 * reader, the reading is handed on now. Any thread.
 */
void loop_may_wait(void);
/* Whether other requests stay where they are until the calling thread has its answer. */
bool loop_is_awaited(void);
/* For who waited for a disk without having called loop_may_wait(). */
void loop_waited(void);

#endif
