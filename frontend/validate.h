/* Whether a request's tensors are what an expert takes: header against schema, frames against header. Pure. */
#ifndef EXPERTD_FRONTEND_VALIDATE_H
#define EXPERTD_FRONTEND_VALIDATE_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/tensor.h"
#include "proto/message.h"

enum { VALIDATE_WHY_SIZE = 320 };

/* Checks the header's tensors and the codecs that it wishes for, then frame_bytes[frames], the sizes of the frames that
 * came with it. OK and *rows, which is 1 ... max_batch_size; else INVALID_ARGUMENT or UNIMPLEMENTED (a codec), and a
 * sentence that names what was expected and what came. */
enum status validate_tensors(const struct schema *schema, uint32_t max_batch_size, const Expertd__RequestHeader *header,
                             const size_t *frame_bytes, uint64_t frames, uint32_t *rows, char why[VALIDATE_WHY_SIZE]);

/* Of a BACKWARD: which of its outputs nobody wants, a bit each, unchecked, of an expert that is not known. */
uint32_t validate_unwanted(const Expertd__RequestHeader *header);
/* Of a BACKWARD: which of its outputs nobody wants, a bit each, as requires_grad says. INVALID_ARGUMENT and a sentence
 * when that has another number of values than the expert has inputs. */
enum status validate_wishes(const struct schema *outputs, const Expertd__RequestHeader *header, uint32_t *unwanted,
                            char why[VALIDATE_WHY_SIZE]);

#endif
