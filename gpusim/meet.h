/* meet.h: collectives: what the streams of several devices do together. The k-th part that each rank
 * of a clique enqueues (also out of a graph) belongs to the k-th collective; it is done when the
 * streams of all ranks have come to it. A rank that is missing, or ranks that come in different
 * orders, would hang on GPUs: here that is a finding, and the launch fails. */
#ifndef MEET_H
#define MEET_H
#include "stream.h"

enum { MEET_RANKS = 16 };
struct Clique *meet_clique(int n);
/* A part was enqueued on s; cmd stays where it is until meet_leave. */
void meet_arrive(Cmd *c, struct Stream *s);
/* Before c runs: brings the other ranks' streams to their parts and does the work for all. */
CUresult meet_gather(Cmd *c);
/* Does a rank wait, since the last call, for one whose device has failed? */
bool meet_hangs(void);
CUresult meet_run(const Cmd *c, struct Stream *s);
/* A part becomes (+1) or ceases to be (-1) a node of a graph; those that now are, of a rank. */
void meet_node(const Cmd *c, int change);
int meet_nodes(const struct Clique *q, int rank);
/* What waits, or comes later, waits no more. */
void meet_abort(struct Clique *q);
/* The part is gone, run or not. */
void meet_leave(const Cmd *c);
#endif
