/* raft_plant.h - known Raft bugs to plant, one at a time, in a build with -DRAFT_PLANT; the real one has none of it. */
#pragma once

#define RAFT_PLANTS(X)                                                                                                 \
    X(PLANT_VOTE_NOT_PERSISTED, "vote-not-persisted")                                                                  \
    X(PLANT_TERM_NOT_PERSISTED, "term-not-persisted")                                                                  \
    X(PLANT_VOTE_SHORT_LOG, "vote-for-short-log")                                                                      \
    X(PLANT_VOTE_TWICE, "vote-twice")                                                                                  \
    X(PLANT_PREVOTES_COUNT, "prevotes-count")                                                                          \
    X(PLANT_COMMIT_OLD_TERM, "commit-old-term")                                                                        \
    X(PLANT_COMMIT_UNVERIFIED, "commit-unverified")                                                                    \
    X(PLANT_ACK_NOT_DURABLE, "ack-not-durable")                                                                        \
    X(PLANT_SELF_NOT_DURABLE, "self-not-durable")                                                                      \
    X(PLANT_NO_TRUNCATE, "no-truncate")                                                                                \
    X(PLANT_TRUNCATE_STALE, "truncate-on-stale-append")                                                                \
    X(PLANT_LEARNERS_COUNT, "learners-count")                                                                          \
    X(PLANT_MEMBERS_BEFORE_NOOP, "members-before-noop")                                                                \
    X(PLANT_MEMBERS_TWO, "two-changes-at-once")                                                                        \
    X(PLANT_MEMBERS_NOT_REVERTED, "members-not-reverted")                                                              \
    X(PLANT_READ_WITHOUT_ROUND, "read-without-round")                                                                  \
    X(PLANT_READ_BEFORE_NOOP, "read-before-noop")                                                                      \
    X(PLANT_SNAPSHOT_KEEPS_LOG, "snapshot-keeps-log")

#define RAFT_PLANT_ENUM(name, text) name,
enum raft_plant { PLANT_NONE, RAFT_PLANTS(RAFT_PLANT_ENUM) PLANT_COUNT };
extern enum raft_plant raft_plant;
