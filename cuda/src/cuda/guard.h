// Lets the host run ahead of the device. A guarded step whose render lacks room for its splats changes nothing,
// and neither does any after it, until the host has heard of it, made room and takes those steps again: the
// outcome is that of a run which had the room from the start.
#pragma once

#include <cstdint>

#include "device.h"

namespace splat::gpu {

// In device memory. Kernels that change what is trained do nothing while `refused` is set.
struct Record {
    unsigned long long taken;      // steps whose renders had room, before any was refused
    unsigned long long instances;  // most (splat, tile) pairs of any guarded render
    unsigned int visible;          // most splats
    unsigned int refused;
};

// The host's side of it. The caller owns the memory of the record, which begins as zeros.
class Guard {
public:
    explicit Guard(Record* record) : record_(record) {}

    Record* record() const { return record_; }
    // What the host has heard.
    const Record& heard() const { return heard_; }

    // After each guarded render; a graph cannot hold it, so that who replays one calls it.
    void send(Stream stream) { mailbox_.send(record_, stream); }
    // Whether renders are being captured in a graph.
    bool capturing = false;
    // Hears what has arrived; never waits.
    void listen() { mailbox_.receive(heard_); }
    // Waits for the device and hears all.
    void settle(Stream stream) {
        copy_to_host(&heard_, record_, sizeof(Record), stream);
        mailbox_.forget();  // it is older
    }
    // After `settle` told of a refusal: the steps that follow count again.
    void resume(Stream stream) {
        set_bytes(&record_->refused, 0, sizeof(record_->refused), stream);
        heard_.refused = 0;
        mailbox_.forget();  // it may still speak of the refusal
    }

private:
    Record* record_;
    Record heard_{};
    Mailbox<Record> mailbox_;
};

}  // namespace splat::gpu
