/* Answers with the content of the request, as one chunk. */
#include "host.h"
#include <stdlib.h>

HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    host_str length = env->get(env, HOST_STR("CONTENT_LENGTH"));
    size_t size = length.ptr ? strtoul(length.ptr, NULL, 10) : 0, have = 0;
    char *content = env->alloc(env, size + 1);
    int64_t count;
    while ((count = env->read(env, content + have, size + 1 - have)) > 0) have += (size_t)count;
    if (count < 0 || have != size) return NULL;
    host_header type = {HOST_STR("Content-Type"), HOST_STR("application/octet-stream")};
    start_response->call(start_response, HOST_STR("200 OK"), &type, 1, NULL);
    return env->bytes(env, (host_str){content, have});
}
