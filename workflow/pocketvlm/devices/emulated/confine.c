/*
 * Confine a program's sockets to one loopback address.
 *
 * adbd listens on every address and on AF_VSOCK, without authentication: a shell for whoever reaches it. Loaded into
 * adbd by its dynamic linker (--preload), this library sends every bind() of an internet socket to the address in
 * POCKETVLM_BIND_ADDRESS, binds an unbound socket there before listen(), and makes socket(AF_VSOCK) fail. Without a
 * loopback address in the variable every such call fails: closed, not open.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int allowed(struct in_addr *address)
{
    const char *text = getenv("POCKETVLM_BIND_ADDRESS");

    if (text == NULL || inet_pton(AF_INET, text, address) != 1)
        return 0;
    return ntohl(address->s_addr) >> 24 == 127;
}

static int confined_bind(int descriptor, int family, in_port_t port)
{
    struct in_addr address;

    if (!allowed(&address)) {
        errno = EACCES;
        return -1;
    }
    if (family == AF_INET6) {
        /* IPv4-mapped, so that the client's IPv4 address and the IPv6 socket meet. */
        struct sockaddr_in6 mapped;
        int off = 0;

        memset(&mapped, 0, sizeof mapped);
        mapped.sin6_family = AF_INET6;
        mapped.sin6_port = port;
        mapped.sin6_addr.s6_addr[10] = 0xff;
        mapped.sin6_addr.s6_addr[11] = 0xff;
        memcpy(&mapped.sin6_addr.s6_addr[12], &address, sizeof address);
        if (setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0)
            return -1;
        return (int)syscall(SYS_bind, descriptor, &mapped, sizeof mapped);
    }
    struct sockaddr_in plain;

    memset(&plain, 0, sizeof plain);
    plain.sin_family = AF_INET;
    plain.sin_port = port;
    plain.sin_addr = address;
    return (int)syscall(SYS_bind, descriptor, &plain, sizeof plain);
}

int socket(int domain, int type, int protocol)
{
    if (domain == AF_VSOCK) {
        errno = EAFNOSUPPORT;
        return -1;
    }
    return (int)syscall(SYS_socket, domain, type, protocol);
}

int bind(int descriptor, const struct sockaddr *address, socklen_t length)
{
    if (address != NULL && length >= sizeof(struct sockaddr_in) && address->sa_family == AF_INET)
        return confined_bind(descriptor, AF_INET, ((const struct sockaddr_in *)address)->sin_port);
    if (address != NULL && length >= sizeof(struct sockaddr_in6) && address->sa_family == AF_INET6)
        return confined_bind(descriptor, AF_INET6, ((const struct sockaddr_in6 *)address)->sin6_port);
    if (address != NULL && length >= sizeof(sa_family_t) && address->sa_family == AF_VSOCK) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    return (int)syscall(SYS_bind, descriptor, address, length);
}

int listen(int descriptor, int backlog)
{
    struct sockaddr_storage bound;
    socklen_t length = sizeof bound;

    /* The kernel binds an unbound socket to every address when it is told to listen. */
    if (getsockname(descriptor, (struct sockaddr *)&bound, &length) != 0)
        return -1;
    if ((bound.ss_family == AF_INET && ((struct sockaddr_in *)&bound)->sin_port == 0) ||
        (bound.ss_family == AF_INET6 && ((struct sockaddr_in6 *)&bound)->sin6_port == 0)) {
        if (confined_bind(descriptor, bound.ss_family, 0) != 0)
            return -1;
    }
    return (int)syscall(SYS_listen, descriptor, backlog);
}
