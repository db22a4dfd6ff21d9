/* Points at which a test makes a process die, stop or fail. They are compiled into instrumented builds alone (make
 * SANITIZE=..., or FAILPOINTS=1), and are nothing elsewhere. The environment's EXPERTD_FAILPOINT says what happens:
 *
 *     NAME[/WHO]=ACTION[@N]     at the N-th time (1) that the process comes to the point NAME
 *     NAME[/WHO]=ACTION@/FILE   whenever it comes there while this file is there
 *
 * ACTION is kill (SIGKILL), stop (SIGSTOP: the test lets it go on) or fail (what the code does on a failure there). WHO
 * is, of a point that belongs to one of several, which one; all, where it is not said. Several stand with commas.
 * tests/system/test_failpoints.py walks all of them: a new one has to stand in its table. */
#ifndef EXPERTD_COMMON_FAILPOINT_H
#define EXPERTD_COMMON_FAILPOINT_H

#ifdef EXPERTD_FAILPOINTS
/* 1: fail; 0: go on. Any thread. `who` may be NULL. */
int failpoint_hit(const char *name, const char *who);
#define FAILPOINT(name) failpoint_hit(name, NULL)
#define FAILPOINT_OF(name, who) failpoint_hit(name, who)
#else
#define FAILPOINT(name) 0
#define FAILPOINT_OF(name, who) ((void)(who), 0)
#endif

#endif
