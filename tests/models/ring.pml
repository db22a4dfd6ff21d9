/* A task pool (pools/pool_shared.h): one frontend, one runtime, each of which may die between any two of its stores and be
 * started again; a request that may be repeated. Checked by spin: the order of the positions, that no slot is written while
 * the other side has it, and that a backward is stepped at most once in a life, and never after it was recorded.
 *
 * -DFORWARD: a forward pool, whose interrupted tasks run again. -DFAULT=1..4 plants a fault, which spin has to find. */
#define CAPACITY 2
#define REQUESTS 3
#define IDS 2
#ifndef FAULT
#define FAULT 0
#endif
#define OK 1
#define REFUSED 2
#define UNAVAILABLE 3

byte committed, released;     /* the frontend's */
byte taken, applied, done;    /* the runtime's */
byte slot_id[CAPACITY], outcome[CAPACITY];
bool cancelled[CAPACITY];
bool recorded[IDS];           /* the applied records; FORWARD has none */

/* What no process sees. */
bool working[CAPACITY];       /* the runtime reads the slot's rows, or writes them */
byte steps[IDS];              /* in this life of the runtime */
byte requests = REQUESTS, frontend_lives = 1, runtime_lives = 2;

#define IN_ORDER (released <= done && done <= applied && applied <= taken && taken <= committed && committed <= released + CAPACITY)
active proctype positions() { assert(IN_ORDER) }

#define FRONTEND_MAY_DIE if :: frontend_lives > 0 -> frontend_lives--; goto again :: true fi
#define RUNTIME_MAY_DIE if :: runtime_lives > 0 -> runtime_lives--; goto again :: true fi

active proctype frontend()
{
    byte own_committed, own_released, next, orphans, i, id;
again:
    /* A new epoch: what the last one left is nobody's, and not reused before the runtime is done with it. */
    own_released = released;
    own_committed = committed;
    orphans = own_committed;
    i = own_released;
    do
    :: i < own_committed -> cancelled[i % CAPACITY] = true; i++
    :: else -> break
    od;
#if FAULT == 1
    own_released = own_committed; /* lets go of what the runtime may have */
    released = own_released;
#endif
    next = own_released;
    do
#if FAULT == 2
    :: requests > 0 && own_committed - own_released <= CAPACITY ->
#else
    :: requests > 0 && own_committed - own_released < CAPACITY ->
#endif
        if :: id = 0 :: id = 1 fi; /* a repeat, or another */
        assert(!working[own_committed % CAPACITY]);
        slot_id[own_committed % CAPACITY] = id;
        cancelled[own_committed % CAPACITY] = false;
        FRONTEND_MAY_DIE;
        own_committed++;
        requests--;
        committed = own_committed;
        FRONTEND_MAY_DIE
    :: next < done ->
        id = slot_id[next % CAPACITY];
#ifndef FORWARD
        /* Whoever is told OK may repeat it: that has to be known by then. */
        assert(next < orphans || outcome[next % CAPACITY] != OK || recorded[id]);
#endif
        next++;
        FRONTEND_MAY_DIE;
        own_released = next;
        released = own_released
    :: own_committed > next -> cancelled[next % CAPACITY] = true /* its deadline */
    :: requests == 0 && own_released == own_committed -> break
    od
}

active proctype runtime()
{
    byte own_taken, own_applied, own_done, t, id;
again:
    /* What it computed in memory went with it. */
    atomic { steps[0] = 0; steps[1] = 0; working[0] = false; working[1] = false }
    own_done = done;
    own_applied = applied;
    own_taken = taken;
#ifdef FORWARD
    own_taken = own_done;
    own_applied = own_done;
    applied = own_applied;
    RUNTIME_MAY_DIE;
#else
    t = own_applied;
    do
    :: t < own_taken -> outcome[t % CAPACITY] = UNAVAILABLE; t++
    :: else -> break
    od;
    own_applied = own_taken;
    own_done = own_taken;
#endif
    taken = own_taken;
    RUNTIME_MAY_DIE;
    applied = own_applied;
    RUNTIME_MAY_DIE;
    done = own_done;
    do
    :: own_taken < committed ->
        t = own_taken;
        id = slot_id[t % CAPACITY];
        own_taken++;
        if
#ifdef FORWARD
        :: cancelled[t % CAPACITY] -> outcome[t % CAPACITY] = REFUSED
#else
        :: cancelled[t % CAPACITY] || recorded[id] -> outcome[t % CAPACITY] = REFUSED
#endif
        :: else ->
            taken = own_taken;
            working[t % CAPACITY] = true;
            RUNTIME_MAY_DIE;
#ifndef FORWARD
            steps[id]++;
            assert(steps[id] == 1 && !recorded[id]);
            RUNTIME_MAY_DIE;
            outcome[t % CAPACITY] = OK;
#if FAULT != 3
            recorded[id] = true;
            RUNTIME_MAY_DIE;
#endif
            own_applied = own_taken;
            applied = own_applied;
            RUNTIME_MAY_DIE;
#else
            outcome[t % CAPACITY] = OK;
#endif
            working[t % CAPACITY] = false
        fi;
        own_applied = own_taken;
        own_done = own_taken;
#if FAULT == 4
        done = own_done; /* a reader may see it before `applied` and `taken` */
        RUNTIME_MAY_DIE;
#endif
        taken = own_taken;
        RUNTIME_MAY_DIE;
        applied = own_applied;
        RUNTIME_MAY_DIE;
        done = own_done;
#if FAULT == 3 && !defined(FORWARD)
        RUNTIME_MAY_DIE;
        recorded[id] = true
#endif
    :: requests == 0 && done == committed && released == committed -> break
    od
}
