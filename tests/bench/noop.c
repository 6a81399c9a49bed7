/* The no-op consumer on librabbitmq: what consuming and acknowledging costs without lapin.
 * usage: noop HOST PORT QUEUE PREFETCH COUNT */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>

static void die(const char *what) {
    fprintf(stderr, "noop: failed to %s\n", what);
    exit(1);
}

static void expect(amqp_connection_state_t connection, const char *what) {
    if (amqp_get_rpc_reply(connection).reply_type != AMQP_RESPONSE_NORMAL) die(what);
}

int main(int argc, char **argv) {
    if (argc != 6) die("read the arguments");
    const long count = atol(argv[5]);
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    if (!socket || amqp_socket_open(socket, argv[1], atoi(argv[2]))) die("connect");
    if (amqp_login(connection, "/", 0, 131072, 15, AMQP_SASL_METHOD_PLAIN, "guest", "guest").reply_type !=
        AMQP_RESPONSE_NORMAL)
        die("log in");
    amqp_channel_open(connection, 1);
    expect(connection, "open a channel");
    amqp_basic_qos(connection, 1, 0, (uint16_t)atoi(argv[4]), 0);
    expect(connection, "set the prefetch");
    amqp_basic_consume(connection, 1, amqp_cstring_bytes(argv[3]), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    expect(connection, "consume");
    for (long taken = 1; taken <= count; taken++) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(connection);
        if (amqp_consume_message(connection, &envelope, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL)
            die("take a message");
        if ((taken % 500 == 0 || taken == count) && amqp_basic_ack(connection, 1, envelope.delivery_tag, 1))
            die("acknowledge");
        amqp_destroy_envelope(&envelope);
    }
    amqp_channel_close(connection, 1, AMQP_REPLY_SUCCESS);
    amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(connection);
    return 0;
}
