/* Any bytes are checked as expertd-dht's reply to a question of each method. */
#include <stdlib.h>

#include "client/dht_client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char uid[] = "ffn.0", prefix[] = "ffn.", *uids[] = {uid}, *prefixes[] = {prefix};
    float scores[4] = {0};
    uint32_t grid[] = {2};
    Expertd__Dht__BeamQuery beam = EXPERTD__DHT__BEAM_QUERY__INIT;
    Expertd__Dht__DrawQuery draw = EXPERTD__DHT__DRAW_QUERY__INIT;
    Expertd__Dht__Request request = EXPERTD__DHT__REQUEST__INIT;
    beam.scores = scores;
    beam.n_scores = 4;
    beam.grid_size = grid;
    beam.n_grid_size = 1;
    beam.beam_size = 2;
    draw.count = 2;
    request.uids = uids;
    request.prefixes = prefixes;
    request.n_uids = request.n_prefixes = 1;
    request.beam = &beam;
    request.draw = &draw;
    Expertd__Dht__Reply *reply = expertd__dht__reply__unpack(NULL, size, data);
    if (!reply)
        return 0;
    for (int method = 0; method < 7; method++) {
        request.method = (Expertd__Dht__Method)method;
        if (!dht_client_check(&request, reply) && method == EXPERTD__DHT__METHOD__DRAW && reply->status == 0 &&
            reply->draw->n_uids > 2)
            abort();
    }
    expertd__dht__reply__free_unpacked(reply, NULL);
    return 0;
}
