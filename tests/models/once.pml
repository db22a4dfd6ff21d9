/* A backward with ids is applied at most once (pools/applied.h, the checkpoint's window), over kills and clean restarts
 * of frontend and runtime.
 *
 * One client asks for one step, KEY, up to SENDS times, whenever it likes, as one whose answers are lost would; other
 * clients' steps push records out of the window, but never so many that KEY's is (that is the promise's bound). The
 * runtime may be killed at any statement: then its parameters are those of the last checkpoint. It may end cleanly:
 * then it writes a checkpoint, and its segment is removed. A pool's tasks are taken one at a time here; ring.pml has
 * the positions. FAULT: tests/system/test_spin.sh. */
#ifndef FAULT
#define FAULT 0
#endif
#ifndef SENDS
#define SENDS 3
#endif
#define KEY 1
#define OTHER 2
#define NONE 0
#define WINDOW 2 /* records */
#define OTHERS 1 /* steps of other clients */
#ifndef KILLS
#define KILLS 1
#endif
#define QUEUE 4

/* The segment: a queue of keys with their statuses, and the records. */
byte queue[QUEUE], committed, taken;
bool cancelled[QUEUE];
byte record_key[WINDOW], record_sequence[WINDOW], newest;
/* The checkpoint: what its parameters have of KEY, and the keys of its window. */
byte saved_steps;
bool saved_key;
/* What the parameters in memory have of KEY. */
byte steps;
bool kill, end_cleanly, quit;

proctype client()
{
    byte sends, others;
    do
    :: sends < SENDS && committed < QUEUE ->
        queue[committed] = KEY;
        committed++;
        sends++
    :: others < OTHERS && committed < QUEUE ->
        queue[committed] = OTHER;
        committed++;
        others++
    :: committed > taken ->
        /* the frontend died: what it had queued is cancelled, which a task that runs does not notice */
        cancelled[committed - 1] = true
    :: sends == SENDS -> break
    od
}

proctype runtime()
{
    byte i, key, sequence, count;
    bool restored, known;
again:
    {
        /* Parameters and window of the checkpoint; records of the segment, also one that is a step ahead of newest. */
        steps = saved_steps;
        restored = (FAULT != 1 && saved_key);
        d_step {
            sequence = newest;
            if
            :: record_sequence[(newest + 1) % WINDOW] == newest + 1 -> sequence = newest + 1
            :: else
            fi
        };
end_of_work:
        do
        :: taken < committed ->
            key = queue[taken];
            d_step {
                known = restored && key == KEY;
                i = 0;
                do
                :: i < WINDOW ->
                    if
                    :: record_key[i] == key && record_sequence[i] != 0 && record_sequence[i] + WINDOW > sequence &&
                            record_sequence[i] <= sequence -> known = true
                    :: else
                    fi;
                    i++
                :: else -> break
                od;
                i = 0
            };
            if
            :: cancelled[taken] || (FAULT != 2 && known) -> taken++
            :: else ->
                if
                :: FAULT == 3 -> saved_steps = steps + (key == KEY); saved_key = known || restored /* step and window apart */
                :: else
                fi;
                if
                :: key == KEY -> steps++; assert(steps == 1)
                :: else
                fi;
                /* applied_record */
                sequence++;
                record_sequence[sequence % WINDOW] = 0;
                record_key[sequence % WINDOW] = key;
                record_sequence[sequence % WINDOW] = sequence;
                newest = sequence;
                taken++
            fi;
            d_step { known = false; key = NONE }
        :: true ->
            /* A checkpoint, between two steps: parameters and window of one moment, by a rename. */
            d_step {
                known = restored;
                i = 0;
                do
                :: i < WINDOW ->
                    if
                    :: record_key[i] == KEY && record_sequence[i] != 0 -> known = true
                    :: else
                    fi;
                    i++
                :: else -> break
                od;
                i = 0;
                saved_steps = steps;
                saved_key = known && FAULT != 4;
                known = false
            };
            if
            :: end_cleanly ->
                /* The segment goes; the next runtime makes another one. */
                d_step {
                    end_cleanly = false;
                    i = 0;
                    do
                    :: i < WINDOW -> record_key[i] = NONE; record_sequence[i] = 0; i++
                    :: else -> break
                    od;
                    i = 0;
                    newest = 0;
                    taken = committed /* answered UNAVAILABLE */
                };
                goto again
            :: else
            fi
        od
    } unless { kill };
    kill = false;
    d_step { i = 0; key = NONE; known = false; sequence = 0; restored = false };
    goto again
}

proctype killer()
{
    byte kills, ends;
    do
    :: kills < KILLS && !kill -> kill = true; kills++
    :: ends < 1 && !end_cleanly -> end_cleanly = true; ends++
    :: break
    od
}

init {
    atomic { run client(); run runtime(); run killer() }
}
