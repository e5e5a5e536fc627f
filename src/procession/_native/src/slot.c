/* One process's way through its slot, from ask to end. Layout and rules: format.h. */
#define _GNU_SOURCE
#include <string.h>

#include "death.h"
#include "kernel.h"
#include "table.h"

static const uint32_t *futex_of(const struct pn_slot *slot)
{
    const uint32_t *halves = (const uint32_t *)(const void *)&slot->word;
    return halves + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
}

/* Texts are read while they are written, so they travel as words. */
static void put_text(_Atomic uint64_t *field, size_t room, const char *text, size_t size)
{
    size_t length = size < room ? size : room - 1;
    if (length < size)
        while (length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80)
            length--;
    for (size_t at = 0; at <= length; at += 8) {
        uint64_t piece = 0;
        memcpy(&piece, text + at, length - at < 8 ? length - at : 8);
        PN_SET(field[at / 8], piece);
    }
}

static void get_text(const _Atomic uint64_t *field, size_t room, char *ret_text)
{
    for (size_t at = 0; at < room; at += 8) {
        uint64_t piece = PN_GET(field[at / 8]);
        memcpy(ret_text + at, &piece, 8);
    }
    ret_text[room - 1] = 0;
}

/* Raise the state of a living slot, never lower it. 1, or 0 when it does not live. */
static int raise_state(struct pn_slot *slot, enum pn_state state)
{
    uint64_t word = atomic_load(&slot->word);
    while (pn_word_lives(word)) {
        if (pn_word_state(word) >= state ||
            atomic_compare_exchange_weak(&slot->word, &word,
                                         pn_word(pn_word_generation(word), state, 0)))
            return 1;
    }
    return 0;
}

int pn_slot_enter(struct pn_slot *slot, enum pn_state state)
{
    if (!pn_word_lives(atomic_load(&slot->word)))
        return -ESRCH;
    PN_SET(slot->pid, getpid());
    PN_SET(slot->start_time, pn_own_start_time());
    PN_SET(slot->view, pn_own_view());
    if (syscall(SYS_gettid) == getpid()) {
        int result = pn_life_take(slot);
        if (result != 0)
            return result;
    }
    if (state == PN_RUNNING)
        PN_SET(slot->running_ns, pn_now_ns());
    return raise_state(slot, state) ? 0 : -ESRCH;
}

int pn_slot_ask(struct pn_slot *slot, uint32_t generation, const struct pn_request *request)
{
    uint64_t word = atomic_load(&slot->word);
    if (pn_word_generation(word) != generation || !pn_word_lives(word) ||
        pn_slot_set_flags(slot, generation, request->flags) < 0)
        return 0;
    PN_SET(slot->owner, request->owner);
    PN_SET(slot->method, request->method);
    PN_SET(slot->asked_ns, request->asked_ns);
    put_text(slot->name, PN_NAME_SIZE, request->name, request->name_size);
    put_text(slot->target, PN_TARGET_SIZE, request->target, request->target_size);
    while (pn_word_generation(word) == generation &&
           (pn_word_state(word) == PN_CLAIMED || pn_word_state(word) == PN_SPARE))
        if (atomic_compare_exchange_weak(&slot->word, &word, pn_word(generation, PN_ASKED, 0)))
            return 1;
    return 0;
}

void pn_slot_run(struct pn_slot *slot)
{
    PN_SET(slot->running_ns, pn_now_ns());
    (void)raise_state(slot, PN_RUNNING);
}

void pn_slot_finish(struct pn_slot *slot, enum pn_how how, int32_t exit_code, const char *text,
                    size_t text_size)
{
    atomic_store(&slot->how, PN_HOW_NONE); /* killed from here on, it has said nothing */
    atomic_thread_fence(memory_order_release);
    put_text(slot->text, PN_TEXT_SIZE, text, text_size);
    PN_SET(slot->exit_code, exit_code);
    atomic_store_explicit(&slot->how, (uint32_t)how, memory_order_release);
}

/* An ending of one's own: its number from 1 on, or 0 when all are taken. */
static uint32_t take_ending(struct pn_slot *slot)
{
    uint32_t taken = atomic_load(&slot->endings_taken);
    for (uint32_t n = 0; n < PN_ENDINGS; n++)
        while (!(taken & 1u << n))
            if (atomic_compare_exchange_weak(&slot->endings_taken, &taken, taken | 1u << n))
                return n + 1;
    return 0;
}

int pn_slot_withdraw(struct pn_table *table, struct pn_slot *slot, uint32_t generation)
{
    uint64_t word = atomic_load(&slot->word);
    while (pn_word_generation(word) == generation &&
           (pn_word_state(word) == PN_CLAIMED || pn_word_state(word) == PN_SPARE))
        if (atomic_compare_exchange_weak(&slot->word, &word, pn_word(generation, PN_ENDED, 0))) {
            atomic_fetch_add(&table->ended_count, 1);
            return 1;
        }
    return 0;
}

int pn_slot_end(struct pn_table *table, struct pn_slot *slot, const struct pn_end *end)
{
    return pn_slot_end_of(table, slot, pn_word_generation(atomic_load(&slot->word)), end);
}

int pn_slot_end_of(struct pn_table *table, struct pn_slot *slot, uint32_t generation,
                   const struct pn_end *end)
{
    uint64_t word = atomic_load(&slot->word);
    if (pn_word_generation(word) != generation)
        return 0;
    uint32_t number = 0;
    int won = 0;
    if (pn_word_lives(word) && (number = take_ending(slot)) != 0) {
        struct pn_ending *ending = &slot->endings[number - 1];
        PN_SET(ending->wait_status, end->wait_status);
        PN_SET(ending->flags, end->flags);
        PN_SET(ending->utime_ns, end->utime_ns);
        PN_SET(ending->stime_ns, end->stime_ns);
        PN_SET(ending->max_rss_kib, end->max_rss_kib);
        PN_SET(ending->ended_ns, pn_now_ns());
    }
    while (!won && pn_word_lives(word) && pn_word_generation(word) == generation)
        won = atomic_compare_exchange_weak(&slot->word, &word,
                                           pn_word(generation, PN_ENDED, number));
    if (won)
        atomic_fetch_add(&table->ended_count, 1);
    else if (number != 0)
        atomic_fetch_and(&slot->endings_taken, ~(1u << (number - 1)));
    pn_futex_wake_all(futex_of(slot));
    pn_life_tell(slot);
    return won;
}

int64_t pn_slot_set_flags(struct pn_slot *slot, uint32_t generation, uint32_t bits)
{
    uint64_t word = atomic_load(&slot->word);
    if (pn_word_generation(word) != generation || pn_word_state(word) == PN_FREE ||
        pn_word_state(word) == PN_CLAIMING)
        return -ESRCH;
    uint64_t flags = atomic_load(&slot->flags);
    do
        if (flags >> 32 != generation)
            return -ESRCH;
    while (!atomic_compare_exchange_weak(&slot->flags, &flags, flags | bits));
    /* from the end on the reaper's count, too */
    word = atomic_load(&slot->word);
    if (pn_word_generation(word) == generation && pn_word_state(word) == PN_ENDED &&
        pn_word_ending(word) != 0)
        bits |= PN_GET(slot->endings[pn_word_ending(word) - 1].flags);
    return (uint32_t)flags | bits;
}

int pn_slot_wait(struct pn_slot *slot, uint32_t generation, int64_t deadline_ns)
{
    for (;;) {
        uint64_t word = atomic_load(&slot->word);
        if (!pn_word_lives(word) || pn_word_generation(word) != generation)
            return 1;
        if (deadline_ns != PN_FOREVER && pn_now_ns() >= deadline_ns)
            return 0;
        int result = pn_futex_wait(futex_of(slot), (uint32_t)word, deadline_ns);
        if (result < 0 && result != -ETIMEDOUT)
            return result;
    }
}

/* The slot of a process that one waits for; NULL when the process is long gone. */
static struct pn_slot *slot_of(struct pn_table *table, uint64_t whom)
{
    uint32_t index = (uint32_t)whom;
    if (index >= table->slot_count ||
        pn_word_generation(atomic_load(&table->slots[index].word)) != whom >> 32)
        return NULL;
    return &table->slots[index];
}

int pn_slot_begin_wait(struct pn_table *table, struct pn_slot *slot, uint64_t whom)
{
    int64_t now = pn_now_ns();
    struct pn_slot *other = slot_of(table, whom);
    if (other != NULL)
        PN_SET(other->joined_since_ns, now);
    for (int place = 0; place < PN_WAITS; place++) {
        struct pn_wait *wait = &slot->waits[place];
        uint64_t nobody = 0;
        if (!atomic_compare_exchange_strong(&wait->whom, &nobody, PN_WAIT_TAKEN))
            continue;
        PN_SET(wait->since_ns, now);
        atomic_store(&wait->whom, whom);
        return place;
    }
    return -EBUSY;
}

void pn_slot_end_wait(struct pn_table *table, struct pn_slot *slot, int place, uint64_t given_up)
{
    struct pn_slot *other = given_up != 0 ? slot_of(table, given_up) : NULL;
    if (other != NULL)
        PN_SET(other->joined_since_ns, 0);
    if (place >= 0)
        atomic_store(&slot->waits[place].whom, 0);
}

uint64_t pn_slot_read_wait(const struct pn_slot *slot, int place, int64_t *ret_since_ns)
{
    const struct pn_wait *wait = &slot->waits[place];
    for (;;) {
        uint64_t whom = atomic_load(&wait->whom);
        *ret_since_ns = PN_GET(wait->since_ns);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load(&wait->whom) == whom)
            return whom == PN_WAIT_TAKEN ? 0 : whom;
    }
}

enum pn_state pn_slot_state(const struct pn_slot *slot, uint32_t generation)
{
    uint64_t word = atomic_load(&slot->word);
    enum pn_state state = pn_word_state(word);
    return pn_word_generation(word) != generation || state == PN_CLAIMING ? PN_FREE : state;
}

static void copy(const struct pn_slot *slot, uint64_t word, struct pn_view *ret)
{
    uint64_t blame = PN_GET(slot->blame);
    ret->state = pn_word_state(word);
    ret->generation = pn_word_generation(word);
    ret->flags = (uint32_t)PN_GET(slot->flags);
    ret->method = PN_GET(slot->method);
    ret->owner = PN_GET(slot->owner);
    ret->start_time = PN_GET(slot->start_time);
    ret->pid = PN_GET(slot->pid);
    ret->killer_pid = (int32_t)(blame >> 32);
    ret->killer_signal = (int32_t)(uint32_t)blame;
    ret->asked_ns = PN_GET(slot->asked_ns);
    ret->running_ns = PN_GET(slot->running_ns);
    get_text(slot->name, PN_NAME_SIZE, ret->name);
    get_text(slot->target, PN_TARGET_SIZE, ret->target);
    ret->how = atomic_load_explicit(&slot->how, memory_order_acquire);
    if (ret->how != PN_HOW_NONE) {
        ret->exit_code = PN_GET(slot->exit_code);
        get_text(slot->text, PN_TEXT_SIZE, ret->text);
    }
    ret->wait_status = -1;
    if (pn_word_ending(word) == 0) {
        if (ret->state == PN_ENDED)
            ret->flags |= PN_FLAG_LOST;
        return;
    }
    const struct pn_ending *ending = &slot->endings[pn_word_ending(word) - 1];
    ret->wait_status = PN_GET(ending->wait_status);
    ret->flags |= PN_GET(ending->flags);
    ret->utime_ns = PN_GET(ending->utime_ns);
    ret->stime_ns = PN_GET(ending->stime_ns);
    ret->max_rss_kib = PN_GET(ending->max_rss_kib);
    ret->ended_ns = PN_GET(ending->ended_ns);
}

void pn_slot_read(const struct pn_slot *slot, struct pn_view *ret_view)
{
    uint64_t word = atomic_load(&slot->word);
    for (;;) { /* again when it went on meanwhile: a slot has five states to go through */
        memset(ret_view, 0, sizeof *ret_view);
        if (pn_word_state(word) == PN_CLAIMING)
            return;
        copy(slot, word, ret_view);
        atomic_thread_fence(memory_order_acquire);
        uint64_t after = atomic_load(&slot->word);
        if (after == word)
            return;
        word = after;
    }
}
