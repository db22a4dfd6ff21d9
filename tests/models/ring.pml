/* A task pool's ring between a frontend and a runtime that are both killed at any step (pools/pool_shared.h).
 *
 *     spin -a -DBACKWARD=1 ring.pml && cc -O2 -DSAFETY -DCOLLAPSE pan.c && ./a.out
 *
 * Every statement is a point at which the other side may go on, and at which a process may be killed; memory is
 * sequentially consistent (that the orders of the C code suffice for that is argued where they stand; the doorbell's
 * model has store buffers). Rows hold the number of the task that wrote them, so that whoever reads rows of another
 * task is caught. In brackets stands the rule of pool_shared.h that an assertion holds. FAULT plants the mistakes that
 * the model must notice: tests/system/test_spin.sh has their list. */
#ifndef BACKWARD
#define BACKWARD 0
#endif
#ifndef FAULT
#define FAULT 0
#endif
#define TASKS 2  /* capacity_tasks */
#define ROWS 3   /* capacity_rows */
#define MAX 2    /* rows of a task */
#ifndef TOTAL
#define TOTAL 3  /* tasks that are committed in all */
#endif
#ifndef FRONTEND_KILLS
#define FRONTEND_KILLS 1
#endif
#ifndef RUNTIME_KILLS
#define RUNTIME_KILLS 1
#endif

#define NONE 0
#define OK 1
#define UNAVAILABLE 2
#define EXPIRED 3

/* The segment. */
byte committed, released, row_position, committed_tasks; /* the frontend's */
byte taken, applied, done;                               /* the runtime's */
typedef slot {
    byte row_position, rows;
    bool cancelled;
    byte status
};
slot tasks[TASKS];
byte input[ROWS], output[ROWS]; /* the task whose row it is, + 1 */

/* What nobody could see. */
byte steps[TOTAL];      /* of the optimizer, with this task */
byte orphans;           /* tasks below: of a frontend that died */
bool frontend_killed, runtime_killed, ended;

inline invariant() {
    assert(released <= done && done <= applied && applied <= taken && taken <= committed && committed <= released + TASKS) /* [order] */
}

#define SLOT(task) tasks[(task) % TASKS]

proctype frontend()
{
    byte head, tail, mine, let_go, results, seen, orphan_end, at, row, rows, i;
    byte held[TASKS]; /* the task + 1 whose outputs a reply still uses */
again:
    {
        /* pool_producer_begin */
        d_step { let_go = released; i = 0; do :: i < TASKS -> held[i] = 0; i++ :: else -> break od; i = 0 };
        seen = done;
        mine = committed;
        head = row_position;
        assert(let_go <= seen && seen <= mine && mine - let_go <= TASKS); /* [order] */
        d_step {
            row = 0;
            at = let_go;
            tail = head;
            do
            :: at < mine ->
                assert(SLOT(at).row_position >= row); /* [places] */
                if
                :: at == let_go -> tail = SLOT(at).row_position
                :: else
                fi;
                row = SLOT(at).row_position + SLOT(at).rows;
                at++
            :: else -> break
            od;
            assert(head >= row && head - tail <= ROWS); /* [places] */
            row = 0
        };
        results = let_go;
        orphan_end = mine;
        orphans = mine;
        at = let_go;
        do
        :: at < mine -> SLOT(at).cancelled = true; at++
        :: else -> break
        od;
        at = 0;

        do
        :: mine < TOTAL && (FAULT == 1 || mine - let_go < TASKS) ->
            /* pool_claim: where the rows go; they never wrap */
            if
            :: rows = 1
            :: rows = MAX
            fi;
            d_step {
                if
                :: mine == let_go -> row = ((head + ROWS - 1) / ROWS) * ROWS; tail = row
                :: else ->
                    row = head;
                    if
                    :: (row % ROWS) + rows > ROWS -> row = ((head + ROWS - 1) / ROWS) * ROWS
                    :: else
                    fi
                fi
            };
            if
            :: FAULT != 2 && row + rows - tail > ROWS -> row = 0; rows = 0 /* no room */
            :: else ->
                if
                :: mine % TASKS >= committed_tasks -> committed_tasks = (mine % TASKS) + 1
                :: else
                fi;
                if
                :: FAULT == 3 -> committed = mine + 1 /* before the rows are there */
                :: else
                fi;
                d_step {
                    i = 0;
                    do
                    :: i < rows -> input[(row + i) % ROWS] = mine + 1; i++
                    :: else -> break
                    od;
                    i = 0
                };
                d_step {
                    assert(mine % TASKS < committed_tasks); /* [pages] */
                    SLOT(mine).row_position = row;
                    SLOT(mine).rows = rows;
                    SLOT(mine).cancelled = false;
                    head = row + rows
                };
                if
                :: FAULT == 4 -> committed = mine + 1; row_position = head
                :: else -> row_position = head; d_step { committed = mine + 1; invariant() }
                fi;
                mine++;
                row = 0;
                rows = 0
            fi
        :: results < mine && results == seen && done > seen ->
            seen = done;
            assert(seen <= mine) /* [order] */
        :: results < seen ->
            /* pool_next_result: outputs of an answer that is OK are this task's, as long as it is held */
            d_step {
                assert(SLOT(results).status != NONE); /* [outcome] */
                if
                :: SLOT(results).status == OK -> assert(!BACKWARD || steps[results] == 1) /* [once] */
                :: SLOT(results).status == EXPIRED -> assert(steps[results] == 0)                /* [outcome] */
                :: else -> assert(BACKWARD && steps[results] <= 1)                         /* [outcome] */
                fi;
                held[results % TASKS] = results + 1;
                results++
            }
        :: held[0] || held[1] ->
            /* any one that is held, not only the oldest: its rows are read, then let go of */
            if
            :: held[0] -> at = held[0] - 1
            :: held[1] -> at = held[1] - 1
            fi;
            d_step {
                i = 0;
                do
                :: i < SLOT(at).rows ->
                    assert(at < orphan_end || SLOT(at).status != OK || output[(SLOT(at).row_position + i) % ROWS] == at + 1); /* [rows], [epoch] */
                    i++
                :: else -> break
                od;
                i = 0;
                held[at % TASKS] = 0
            };
            d_step {
                do
                :: FAULT == 5 && let_go <= at -> let_go++ /* also past those that are held */
                :: FAULT != 5 && let_go < results && held[let_go % TASKS] != let_go + 1 -> let_go++
                :: else -> break
                od;
                if
                :: let_go == mine -> tail = head
                :: else -> tail = SLOT(let_go).row_position
                fi
            };
            d_step { released = let_go; invariant() };
            at = 0
        :: let_go == TOTAL -> break
        od;
        ended = true
    } unless { frontend_killed };
    if
    :: ended -> skip
    :: else -> frontend_killed = false; goto again
    fi
}

/* Batches in flight: ends of them, oldest first; what is skipped behind one is settled with it. */
proctype runtime()
{
    byte my_taken, my_applied, my_done, there, at, i, ends[2], flying, batch_end, before;
    bool skipped[TOTAL], computed;
again:
    {
        d_step { i = 0; do :: i < TOTAL -> skipped[i] = false; i++ :: else -> break od; i = 0; flying = 0; computed = false };
        /* pool_consumer_begin: committed before released, so that their distance is never too large */
        if
        :: FAULT == 6 -> before = released; there = committed
        :: else -> there = committed; before = released
        fi;
        my_done = done;
        my_applied = applied;
        my_taken = taken;
        assert(before <= my_done && my_done <= my_applied && my_applied <= my_taken && my_taken <= there); /* [order] */
        assert(there <= before + TASKS); /* [order] */
        if
        :: !BACKWARD || FAULT == 7 ->
            /* applied first: it may be ahead of done, and taken goes back */
            my_taken = my_done;
            my_applied = my_done;
            if
            :: FAULT == 10 -> skip
            :: else -> d_step { applied = my_applied; invariant() }
            fi
        :: else ->
            at = my_applied;
            do
            :: at < my_taken -> SLOT(at).status = UNAVAILABLE; at++
            :: else -> break
            od;
            my_applied = my_taken;
            my_done = my_taken
        fi;
        at = 0;
        d_step { taken = my_taken; invariant() };
        d_step { applied = my_applied; invariant() };
        d_step { done = my_done; invariant() };

end_of_work:
        do
        :: there < committed ->
            there = committed;
            assert(there - my_done <= TASKS) /* [order] */
        :: my_taken < there && SLOT(my_taken).cancelled && flying == 0 ->
            SLOT(my_taken).status = EXPIRED;
            my_taken++;
            d_step { taken = my_taken; invariant() };
            my_applied = my_taken;
            my_done = my_taken;
            d_step { applied = my_applied; invariant() };
            d_step { done = my_done; invariant() }
        :: my_taken < there && SLOT(my_taken).cancelled && flying > 0 ->
            SLOT(my_taken).status = EXPIRED;
            skipped[my_taken] = true;
            my_taken++;
            d_step { taken = my_taken; invariant() }
        :: my_taken < there && !SLOT(my_taken).cancelled && flying < 2 ->
            /* one task, or the next one too, whose rows are right behind */
            d_step {
                assert(my_taken % TASKS < committed_tasks); /* [pages] */
                batch_end = my_taken + 1
            };
            if
            :: batch_end < there && !SLOT(batch_end).cancelled &&
                    SLOT(batch_end).row_position == SLOT(my_taken).row_position + SLOT(my_taken).rows -> batch_end++
            :: true
            fi;
            my_taken = batch_end;
            d_step { ends[flying] = batch_end; flying++; taken = my_taken; invariant() };
            batch_end = 0
        :: flying > 0 && !computed ->
            /* the oldest batch: the rows of one task after the other's */
            at = my_done;
            do
            :: at < ends[0] ->
                d_step {
                    i = 0;
                    do
                    :: i < SLOT(at).rows ->
                        assert(input[(SLOT(at).row_position + i) % ROWS] == at + 1); /* [rows], [epoch] */
                        output[(SLOT(at).row_position + i) % ROWS] = at + 1;
                        i++
                    :: else -> break
                    od;
                    i = 0;
                    at++
                }
            :: else -> break
            od;
            at = my_done;
            if
            :: BACKWARD ->
                d_step { /* one step of the optimizer for the batch */
                    do
                    :: at < ends[0] -> steps[at]++; assert(steps[at] == 1); at++ /* [once] */
                    :: else -> break
                    od
                };
                if
                :: FAULT == 8 -> my_applied = ends[0]; applied = my_applied /* before the outcomes */
                :: else
                fi;
                at = my_done;
                do
                :: at < ends[0] -> SLOT(at).status = OK; at++
                :: else -> break
                od;
                my_applied = ends[0];
                d_step { applied = my_applied; invariant() }
            :: else
            fi;
            at = 0;
            computed = true
        :: flying > 0 && computed ->
            if
            :: FAULT == 9 -> done = ends[0] /* before its outcome and positions */
            :: else
            fi;
            at = my_done;
            do
            :: at < ends[0] -> SLOT(at).status = OK; at++
            :: else -> break
            od;
            at = 0;
            d_step {
                my_done = ends[0];
                do
                :: my_done < my_taken && skipped[my_done] -> my_done++
                :: else -> break
                od;
                if
                :: my_applied < my_done -> my_applied = my_done
                :: else
                fi;
                ends[0] = ends[1];
                ends[1] = 0;
                flying--;
                computed = false
            };
            d_step { applied = my_applied; invariant() };
            d_step { done = my_done; invariant() }
        od
    } unless { runtime_killed };
    runtime_killed = false;
    goto again
}

proctype killer()
{
    byte frontends, runtimes;
    do
    :: frontends < FRONTEND_KILLS && !ended && !frontend_killed -> frontend_killed = true; frontends++
    :: runtimes < RUNTIME_KILLS && !runtime_killed -> runtime_killed = true; runtimes++
    :: break
    od
}

init {
    atomic { run frontend(); run runtime(); run killer() }
}
