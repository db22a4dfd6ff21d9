/* expertd plan: a configuration for all devices of a machine. */
#ifndef EXPERTD_COMMAND_PLAN_H
#define EXPERTD_COMMAND_PLAN_H

/* The command; argv[0] is its name. The exit status. */
int plan(int argc, char **argv);

#endif
