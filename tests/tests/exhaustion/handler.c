/* A handler that uses up what PATH_INFO says. What it holds, it holds until there is the file that the environ names (GATE);
 * the query is a number. */
#define _GNU_SOURCE
#include "host.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PIECE ((size_t)1 << 20)

static void wait_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&time, &time) != 0 && errno == EINTR) {}
}

/* A minute at most: what outlives the test must end all the same. */
static void wait_for(const char *gate) {
    for (int left = 30000; left > 0 && access(gate, F_OK) != 0; left--) wait_ms(2);
}

/* How many MiB there were to be had. They are a list, so that they can be freed. */
static long take_memory(void **pieces) {
    long count = 0;
    for (void **piece; (piece = malloc(PIECE)) != NULL; count++) {
        memset(piece, 1, PIECE);
        *piece = *pieces;
        *pieces = piece;
    }
    return count;
}

static long take_memory_of_request(host_env *env) {
    long count = 0;
    for (char *piece; (piece = env->alloc(env, PIECE)) != NULL; count++) memset(piece, 1, PIECE);
    return count;
}

static long take_descriptors(const char *gate) {
    int held[65536], count = 0;
    while (count < 65536 && (held[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) count++;
    wait_for(gate);
    for (int at = 0; at < count; at++) close(held[at]);
    return count;
}

/* Processes that outlive the worker, and fill what becomes free. */
static long take_processes(host_env *env, const char *gate) {
    for (pid_t child; (child = fork()) >= 0;) {
        if (child > 0) continue;
        signal(SIGCHLD, SIG_IGN);
        for (int left = 30000; left > 0 && access(gate, F_OK) != 0; left--) {
            if (fork() != 0) wait_ms(2);
        }
        _exit(0);
    }
    env->errors(env, HOST_STR("no more processes"));
    wait_for(gate);
    return 0;
}

/* Children that end at once: as many SIGCHLD. */
static long fork_and_wait(long wanted) {
    long count = 0;
    for (long at = 0; at < wanted; at++) {
        pid_t child = fork();
        if (child == 0) _exit(0);
        if (child > 0) count++;
    }
    for (long left = count; left > 0;) {
        if (wait(NULL) > 0) left--;
        else if (errno != EINTR) break;
    }
    return count;
}

HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    const char *path = env->get(env, HOST_STR("PATH_INFO")).ptr;
    const char *gate = env->get(env, HOST_STR("GATE")).ptr;
    host_str query = env->get(env, HOST_STR("QUERY_STRING"));
    long number = query.ptr ? atol(query.ptr) : 0, count = 0;
    void *pieces = NULL;

    if (strcmp(path, "/sleep") == 0) wait_ms(number);
    else if (strcmp(path, "/memory/keep") == 0) count = take_memory(&pieces);
    else if (strcmp(path, "/memory/crash") == 0) { count = take_memory(&pieces); *(volatile int *)16 = 1; }
    else if (strcmp(path, "/memory/request") == 0) count = take_memory_of_request(env);
    else if (strcmp(path, "/memory/child") == 0) {
        pid_t child = fork();
        if (child == 0) { take_memory(&pieces); wait_for(gate); _exit(0); }
        waitpid(child, NULL, 0);
    } else if (strcmp(path, "/left/behind") == 0) {
        if (fork() == 0) { prctl(PR_SET_NAME, "left-behind"); wait_for(gate); _exit(0); }
    } else if (strcmp(path, "/memory/give") == 0) {
        count = take_memory(&pieces);
        for (void *piece; (piece = pieces) != NULL; free(piece)) pieces = *(void **)piece;
    }
    else if (strcmp(path, "/descriptors") == 0) { env->errors(env, HOST_STR("taking")); count = take_descriptors(gate); }
    else if (strcmp(path, "/processes") == 0) count = take_processes(env, gate);
    else if (strcmp(path, "/fork") == 0) count = fork_and_wait(number);

    char out[32];
    start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
    return env->bytes(env, (host_str){out, (size_t)snprintf(out, sizeof out, "%ld\n", count)});
}
