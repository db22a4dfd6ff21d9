/* The engine's one file of C++: see engine.h. */
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <libtorrent/alert_types.hpp>
#include <libtorrent/bdecode.hpp>
#include <libtorrent/disabled_disk_io.hpp>
#include <libtorrent/entry.hpp>
#include <libtorrent/hasher.hpp>
#include <libtorrent/kademlia/dht_storage.hpp>
#include <libtorrent/session.hpp>
#include <libtorrent/session_params.hpp>
#include <libtorrent/settings_pack.hpp>

extern "C" {
#include "common/log.h"
#include "dht/contact.h"
}
#include "dht/engine.h"

/* libtorrent ties its socket to the network device that has the address, and offers no way not to. But what processes
 * of one machine send each other goes by the loopback device, whatever their addresses are, and would not arrive. So
 * this process ties no socket to a device: the dynamic linker takes this function for the C library's. */
extern "C" __attribute__((visibility("default"))) int setsockopt(int fd, int level, int name, const void *value,
                                                                 socklen_t size) noexcept
{
    if (level == SOL_SOCKET && name == SO_BINDTODEVICE)
        return 0;
    return static_cast<int>(syscall(SYS_setsockopt, fd, level, name, value, size));
}

/* For trackers that speak HTTPS, of which we have none, each session reads all certificates of the machine: 60 ms. */
struct ssl_ctx_st;
extern "C" __attribute__((visibility("default"))) int SSL_CTX_set_default_verify_paths(struct ssl_ctx_st *)
{
    return 1;
}

namespace
{

using endpoint = lt::udp::endpoint;
using node_id = lt::sha1_hash;

constexpr unsigned asked_at_once = 8;                   /* nodes, by one find */
constexpr unsigned finds_at_once = 32;                  /* the others wait */
constexpr size_t candidates_max = 128;                  /* of a find */
constexpr size_t known_max = 1024;                      /* nodes that are remembered */
constexpr unsigned sends_max = 3;                       /* of one question to one node */
constexpr uint64_t table_ns = NS_PER_S;                 /* the routing table is looked at so often, */
constexpr uint64_t table_few_ns = NS_PER_MS;            /* and before each find while few are known: each one counts */
constexpr uint64_t table_patience_ns = 100 * NS_PER_MS; /* for libtorrent to tell */
constexpr uint64_t dead_ns = ENGINE_SILENT_MS * NS_PER_MS;
constexpr int listen_ms = 10000;
constexpr uint64_t look_ns = 2 * NS_PER_S; /* between two looks whether our address is still there */
/* Strangers' budget in what this node keeps for others. */
constexpr size_t watched_max = 65536, fresh_max = 1024; /* keys that were looked for; announcements not yet told of */
constexpr size_t keys_max = 65536, keys_per_source = 8192, ports_per_source = 64;

contact from_endpoint(lt::address const &ip, uint16_t port)
{
    endpoint const at(ip, port);
    contact made;
    contact_from_socket(&made, reinterpret_cast<sockaddr const *>(at.data()));
    return made;
}

endpoint to_endpoint(contact const &from)
{
    if (contact_is_v4(&from)) {
        lt::address_v4::bytes_type bytes;
        std::copy(from.ip + 12, from.ip + 16, bytes.begin());
        return {lt::address_v4(bytes), contact_port(&from)};
    }
    lt::address_v6::bytes_type bytes;
    std::copy(from.ip, from.ip + 16, bytes.begin());
    return {lt::address_v6(bytes), contact_port(&from)};
}

/* The compact form of BitTorrent: 4 or 16 bytes, and 2 of the port. */
bool from_compact(lt::string_view text, contact &made)
{
    if (text.size() != 6 && text.size() != 18)
        return false;
    made = {};
    if (text.size() == 6)
        made.ip[10] = made.ip[11] = 0xff;
    std::memcpy(made.ip + (text.size() == 6 ? 12 : 0), text.data(), text.size() - 2);
    std::memcpy(made.port, text.data() + text.size() - 2, 2);
    return contact_port(&made) != 0;
}

std::string to_compact(contact const &from)
{
    size_t const skip = contact_is_v4(&from) ? 12 : 0;
    std::string text(reinterpret_cast<char const *>(from.ip) + skip, sizeof from.ip - skip);
    text.append(reinterpret_cast<char const *>(from.port), sizeof from.port);
    return text;
}

bool same_host(contact const &a, contact const &b)
{
    return std::memcmp(a.ip, b.ip, sizeof a.ip) == 0;
}

/* ---- what this node keeps for others ------------------------------------------------------------------------------
 */

void ring(int fd)
{
    if (eventfd_write(fd, 1) != 0) {
        /* Only a counter near 2^64 can refuse: it is readable then. */
    }
}

/* Announcements by key, as libtorrent's node keeps them. Used by libtorrent's thread, and by ours, which looks into it
 * as into another node's. Items, BitTorrent's other kind of value, are not kept. */
class keeper final : public lt::dht::dht_storage_interface
{
  public:
    explicit keeper(int fd) : fd_(fd)
    {
    }

    /* True: it was not there before. */
    bool announce(node_id const &key, contact const &who, uint64_t now_ns)
    {
        std::lock_guard<std::mutex> guard(mutex);
        auto found = keys.find(key);
        if (found == keys.end() && keys.size() >= keys_max)
            return false;
        std::string const source(reinterpret_cast<char const *>(who.ip), sizeof who.ip);
        auto *list = found == keys.end() ? nullptr : &found->second;
        size_t from_source = 0;
        for (size_t i = 0; list && i < list->size(); i++) {
            if (std::memcmp(&(*list)[i].who, &who, sizeof who) == 0) {
                (*list)[i].until_ns = now_ns + ENGINE_KEPT_S * NS_PER_S;
                return false;
            }
            from_source += same_host((*list)[i].who, who);
        }
        /* Many servers on one machine are a test, or a benchmark: only loopback's. */
        size_t const limit = contact_is_loopback(&who) ? size_t{ENGINE_REPLY_PEERS} : ports_per_source;
        if ((list && list->size() >= ENGINE_REPLY_PEERS) || from_source >= limit)
            return false;
        size_t &total = sources[source];
        if (total >= keys_per_source && !contact_is_loopback(&who))
            return false;
        total++;
        keys[key].push_back({who, now_ns + ENGINE_KEPT_S * NS_PER_S});
        return true;
    }

    /* What others announce under a key that was looked for here is told of. */
    void watch(node_id const &key, uint64_t token)
    {
        std::lock_guard<std::mutex> guard(mutex);
        if (watched.size() >= watched_max)
            watched.clear();
        watched[key] = token;
    }

    /* True: take_fresh has something. */
    bool note_fresh(node_id const &key, contact const &who)
    {
        std::lock_guard<std::mutex> guard(mutex);
        auto const found = watched.find(key);
        if (found == watched.end() || fresh.size() >= fresh_max)
            return false;
        fresh.emplace_back(found->second, who);
        return true;
    }

    std::vector<std::pair<uint64_t, contact>> take_fresh()
    {
        std::lock_guard<std::mutex> guard(mutex);
        return std::exchange(fresh, {});
    }

    std::vector<contact> get(node_id const &key, uint64_t now_ns) const
    {
        std::lock_guard<std::mutex> guard(mutex);
        std::vector<contact> live;
        auto const found = keys.find(key);
        if (found != keys.end())
            for (auto const &kept : found->second)
                if (kept.until_ns > now_ns)
                    live.push_back(kept.who);
        return live;
    }

    void sweep(uint64_t now_ns)
    {
        std::lock_guard<std::mutex> guard(mutex);
        for (auto at = keys.begin(); at != keys.end();) {
            auto &list = at->second;
            list.erase(std::remove_if(list.begin(), list.end(),
                                      [&](item const &kept) {
                                          if (kept.until_ns > now_ns)
                                              return false;
                                          let_go(kept.who);
                                          return true;
                                      }),
                       list.end());
            at = list.empty() ? keys.erase(at) : std::next(at);
        }
    }

    node_id id() const
    {
        std::lock_guard<std::mutex> guard(mutex);
        return own_id;
    }

    size_t count() const
    {
        std::lock_guard<std::mutex> guard(mutex);
        return keys.size();
    }

#if TORRENT_ABI_VERSION == 1
    size_t num_torrents() const override
    {
        return count();
    }
    size_t num_peers() const override
    {
        return 0;
    }
#endif
    void update_node_ids(std::vector<lt::dht::node_id> const &ids) override
    {
        std::lock_guard<std::mutex> guard(mutex);
        if (!ids.empty())
            own_id = ids.front();
    }

    bool get_peers(lt::sha1_hash const &key, bool, bool, lt::address const &requester, lt::entry &reply) const override
    {
        auto const live = get(key, clock_now_ns());
        lt::entry::list_type values;
        for (auto const &who : live)
            if (contact_is_v4(&who) == requester.is_v4())
                values.emplace_back(to_compact(who));
        bool const full = values.size() >= ENGINE_REPLY_PEERS;
        if (!values.empty())
            reply["values"] = std::move(values);
        return full;
    }

    void announce_peer(lt::sha1_hash const &key, lt::tcp::endpoint const &who, lt::string_view, bool) override
    {
        contact const at = from_endpoint(who.address(), who.port());
        if (who.port() != 0 && announce(key, at, clock_now_ns()) && note_fresh(key, at))
            ring(fd_);
    }

    bool get_immutable_item(lt::sha1_hash const &, lt::entry &) const override
    {
        return false;
    }
    void put_immutable_item(lt::sha1_hash const &, lt::span<char const>, lt::address const &) override
    {
    }
    bool get_mutable_item_seq(lt::sha1_hash const &, lt::dht::sequence_number &) const override
    {
        return false;
    }
    bool get_mutable_item(lt::sha1_hash const &, lt::dht::sequence_number, bool, lt::entry &) const override
    {
        return false;
    }
    void put_mutable_item(lt::sha1_hash const &, lt::span<char const>, lt::dht::signature const &,
                          lt::dht::sequence_number, lt::dht::public_key const &, lt::span<char const>,
                          lt::address const &) override
    {
    }
    int get_infohashes_sample(lt::entry &) override
    {
        return 0;
    }
    void tick() override
    {
        sweep(clock_now_ns());
    }
    lt::dht::dht_storage_counters counters() const override
    {
        lt::dht::dht_storage_counters made;
        made.torrents = static_cast<std::int32_t>(count());
        return made;
    }

  private:
    struct item {
        contact who;
        uint64_t until_ns;
    };

    void let_go(contact const &who)
    {
        auto const source = sources.find(std::string(reinterpret_cast<char const *>(who.ip), sizeof who.ip));
        if (source != sources.end() && --source->second == 0)
            sources.erase(source);
    }

    mutable std::mutex mutex;
    std::unordered_map<node_id, std::vector<item>> keys;
    std::unordered_map<std::string, size_t> sources; /* announcements of each IP */
    std::unordered_map<node_id, uint64_t> watched;   /* -> the token of the latest find */
    std::vector<std::pair<uint64_t, contact>> fresh;
    node_id own_id;
    int fd_;
};

/* ---- what is under way --------------------------------------------------------------------------------------------
 */

enum class step { fresh, asked, answered, dead };

struct candidate {
    endpoint at;
    node_id id;
    node_id distance; /* from the key; the greatest of a node whose id is not known yet */
    step state = step::fresh;
    unsigned sends = 0;
    uint64_t sent_ns = 0; /* the first time */
    std::string token;    /* to announce with */
};

struct find {
    uint64_t number;
    node_id key;
    uint64_t token;
    uint16_t port; /* announced at the end; 0: nothing */
    bool announcing = false;
    std::vector<candidate> candidates; /* the nearest first */
    std::unordered_set<std::string> told;
    unsigned fullest = 0;
    uint64_t due_ns = 0;
};

struct ping {
    uint64_t token;
    endpoint node;
};

/* A question under way: what libtorrent hands back with the answer. */
struct question {
    uint64_t find; /* 0: a ping */
    endpoint node;
    bool announce;
    uint64_t sent_ns;
    uint64_t token; /* of a ping */
};

struct known_node {
    node_id id;
    uint64_t answered_ns = 0;
    uint64_t silent_ns = 0; /* when it last did not answer; 0: it did since */

    bool lives() const
    {
        return answered_ns != 0 && silent_ns == 0;
    }
};

} // namespace

struct engine {
    std::unique_ptr<lt::session> session;
    keeper *kept = nullptr; /* the session's */
    int fd = -1;
    contact reached_at = {};
    bool follows = false; /* the machine's address */
    std::unique_ptr<contact> bootstrap;
    uint64_t next_look_ns = 0;
    uint64_t last_number = 0;
    std::map<uint64_t, find> finds; /* under way */
    std::deque<find> waiting;
    std::map<endpoint, known_node> known;
    size_t live = 0; /* of them */
    std::unordered_set<question *> questions;
    std::vector<engine_event> ended; /* to be told of */
    uint64_t table_asked_ns = 0, table_got_ns = 0;
    size_t table_nodes = 0;
    uint64_t round_trip_ns = 0; /* a mean of the latest; 0: none yet */
    bool mapping = false;
    moment now = {};
    engine_sink sink = nullptr;
    void *context = nullptr;

    ~engine()
    {
        /* The session's end waits for its thread. */
        session.reset();
        for (auto *asked : questions)
            delete asked;
        if (fd >= 0)
            close(fd);
    }
};

namespace
{

/* ---- nodes --------------------------------------------------------------------------------------------------------
 */

void remember(engine &e, endpoint const &at, node_id const &id)
{
    if (e.known.size() >= known_max && e.known.find(at) == e.known.end()) {
        auto oldest = std::min_element(e.known.begin(), e.known.end(), [](auto const &a, auto const &b) {
            return a.second.answered_ns < b.second.answered_ns;
        });
        e.live -= oldest->second.lives();
        e.known.erase(oldest);
    }
    e.known[at].id = id;
}

void heard(engine &e, endpoint const &at, node_id const &id, uint64_t sent_ns)
{
    bool const is_new = e.known.find(at) == e.known.end();
    remember(e, at, id);
    auto &node = e.known[at];
    /* Into libtorrent's table: so that it is handed on to others, also before they have met. */
    if (is_new || node.answered_ns == 0)
        e.session->add_dht_node({at.address().to_string(), at.port()});
    e.live += !node.lives();
    node.answered_ns = e.now.ns;
    node.silent_ns = 0;
    uint64_t const took = e.now.ns > sent_ns ? e.now.ns - sent_ns : 0;
    e.round_trip_ns = e.round_trip_ns ? (7 * e.round_trip_ns + took) / 8 : took;
}

/* How long an answer may take before the question is put again, and others are asked beside it. */
uint64_t patience_ns(engine const &e)
{
    uint64_t const guess = e.round_trip_ns ? 40 * NS_PER_MS + 4 * e.round_trip_ns : 250 * NS_PER_MS;
    return std::min<uint64_t>(std::max<uint64_t>(guess, 50 * NS_PER_MS), 500 * NS_PER_MS);
}

bool is_silent(engine const &e, known_node const &node)
{
    return node.silent_ns != 0 && e.now.ns - node.silent_ns < dead_ns;
}

void add_candidate(engine const &e, find &f, endpoint const &at, node_id const &id)
{
    if (id == e.kept->id() || at.port() == 0)
        return;
    node_id const distance = id ^ f.key;
    for (auto const &c : f.candidates)
        if (c.at == at)
            return;
    auto const place = std::upper_bound(f.candidates.begin(), f.candidates.end(), distance,
                                        [](node_id const &d, candidate const &c) { return d < c.distance; });
    if (place - f.candidates.begin() >= static_cast<long>(candidates_max))
        return;
    candidate made;
    made.at = at;
    made.id = id;
    made.distance = distance;
    /* Another find has waited for it in vain just now. */
    auto const node = e.known.find(at);
    if (node != e.known.end() && is_silent(e, node->second))
        made.state = step::dead;
    f.candidates.insert(place, std::move(made));
    if (f.candidates.size() > candidates_max)
        f.candidates.pop_back();
}

void seed(engine const &e, find &f)
{
    std::vector<std::pair<node_id, endpoint>> near;
    near.reserve(e.known.size());
    for (auto const &node : e.known) {
        if (is_silent(e, node.second))
            continue;
        near.emplace_back(node.second.id ^ f.key, node.first);
    }
    size_t const count = std::min<size_t>(near.size(), 2 * ENGINE_NEAREST);
    std::partial_sort(near.begin(), near.begin() + static_cast<long>(count), near.end());
    for (size_t i = 0; i < count; i++)
        add_candidate(e, f, near[i].second, near[i].first ^ f.key);
}

/* ---- asking -------------------------------------------------------------------------------------------------------
 */

void ask(engine &e, endpoint const &at, uint64_t number, bool announce, uint64_t token, lt::entry const &what)
{
    auto asked = std::make_unique<question>(question{number, at, announce, e.now.ns, token});
    e.questions.insert(asked.get());
    e.session->dht_direct_request(at, what, lt::client_data_t(asked.release()));
}

void ask_candidate(engine &e, find &f, candidate &c)
{
    lt::entry what;
    what["y"] = "q";
    what["q"] = f.announcing ? "announce_peer" : "get_peers";
    auto &arguments = what["a"];
    arguments["info_hash"] = std::string(f.key.data(), f.key.size());
    if (f.announcing) {
        arguments["port"] = f.port;
        arguments["token"] = c.token;
        arguments["implied_port"] = 0;
    }
    if (c.sends == 0)
        c.sent_ns = e.now.ns;
    c.sends++;
    c.state = step::asked;
    ask(e, c.at, f.number, f.announcing, 0, what);
}

void tell(engine &e, find &f, std::vector<contact> const &addresses)
{
    std::vector<contact> fresh;
    for (auto const &who : addresses)
        if (f.told.insert(std::string(reinterpret_cast<char const *>(&who), sizeof who)).second)
            fresh.push_back(who);
    f.fullest = std::max(f.fullest, static_cast<unsigned>(addresses.size()));
    if (fresh.empty() || !e.sink)
        return;
    engine_event event = {};
    event.kind = ENGINE_PEERS;
    event.token = f.token;
    event.addresses = fresh.data();
    event.count = fresh.size();
    e.sink(e.context, &event, e.now);
}

/* Those that are waited for, and whether it is all over: the nearest that are there have answered. */
bool advance(engine &e, find &f, unsigned *answered, unsigned *silent)
{
    uint64_t const patience = patience_ns(e);
    unsigned good = 0, pending = 0;
    *answered = *silent = 0;
    f.due_ns = UINT64_MAX;
    for (auto &c : f.candidates) {
        if (*answered == ENGINE_NEAREST || good >= ENGINE_NEAREST)
            break;
        if (c.state == step::asked) {
            uint64_t const waited = e.now.ns - c.sent_ns;
            if (waited >= sends_max * patience) {
                c.state = step::dead;
                auto node = e.known.find(c.at);
                if (node != e.known.end()) {
                    e.live -= node->second.lives();
                    node->second.silent_ns = e.now.ns;
                }
            } else if (c.sends < sends_max && waited >= c.sends * patience) {
                ask_candidate(e, f, c);
            }
        }
        if (c.state == step::fresh && pending < asked_at_once)
            ask_candidate(e, f, c);
        if (c.state == step::asked || c.state == step::fresh) {
            pending++;
            /* One that takes its time does not keep us from asking others. */
            bool const slow = c.state == step::asked && e.now.ns - c.sent_ns >= patience;
            good += !slow;
            if (c.state == step::asked)
                f.due_ns = std::min(f.due_ns, c.sent_ns + c.sends * patience);
        } else if (c.state == step::answered) {
            ++*answered;
            good++;
        } else {
            ++*silent;
        }
    }
    return pending == 0;
}

void end(engine &e, find &f, unsigned answered, unsigned silent)
{
    engine_event event = {};
    event.kind = f.port ? ENGINE_ANNOUNCED : ENGINE_FOUND;
    event.token = f.token;
    event.answered = answered;
    event.silent = silent;
    event.fullest = f.fullest;
    e.ended.push_back(event);
}

/* From looking to leaving it there. */
void start_announcing(engine &e, find &f)
{
    std::vector<candidate> nearest;
    for (auto &c : f.candidates) {
        if (c.state != step::answered || c.token.empty())
            continue;
        c.state = step::fresh;
        c.sends = 0;
        nearest.push_back(std::move(c));
        if (nearest.size() == ENGINE_NEAREST)
            break;
    }
    f.announcing = true;
    f.candidates = std::move(nearest);
    if (f.candidates.size() < ENGINE_NEAREST) {
        contact own = e.reached_at;
        contact_set_port(&own, f.port);
        e.kept->announce(f.key, own, e.now.ns);
    }
}

/* True: it is over. */
bool pump(engine &e, find &f)
{
    unsigned answered, silent;
    if (!advance(e, f, &answered, &silent))
        return false;
    if (f.port && !f.announcing) {
        start_announcing(e, f);
        if (!advance(e, f, &answered, &silent))
            return false;
    }
    end(e, f, answered, silent);
    return true;
}

uint64_t table_age_ns(engine const &e)
{
    bool const one_can_start = !e.waiting.empty() && e.finds.size() < finds_at_once;
    return one_can_start && e.known.size() < 2 * ENGINE_NEAREST ? table_few_ns : table_ns;
}

void start_waiting(engine &e)
{
    /* Whoever has met us since is in the routing table only. */
    if (e.now.ns - e.table_got_ns >= table_age_ns(e))
        return;
    while (!e.waiting.empty() && e.finds.size() < finds_at_once) {
        find f = std::move(e.waiting.front());
        e.waiting.pop_front();
        seed(e, f);
        tell(e, f, e.kept->get(f.key, e.now.ns));
        if (!pump(e, f))
            e.finds.emplace(f.number, std::move(f));
    }
}

/* Returns when it is to be done again. */
uint64_t ask_table(engine &e)
{
    uint64_t const due_ns =
        e.table_asked_ns > e.table_got_ns ? e.table_asked_ns + table_patience_ns : e.table_got_ns + table_age_ns(e);
    if (e.now.ns < due_ns)
        return due_ns;
    e.table_asked_ns = e.now.ns;
    e.session->dht_live_nodes(e.kept->id());
    return e.now.ns + table_patience_ns;
}

/* ---- answers ------------------------------------------------------------------------------------------------------
 */

template <typename Ip, size_t Size> void take_nodes(engine const &e, find &f, lt::string_view text)
{
    for (; text.size() >= 20 + Size + 2; text = text.substr(20 + Size + 2)) {
        typename Ip::bytes_type bytes;
        std::memcpy(bytes.data(), text.data() + 20, Size);
        auto const *port = reinterpret_cast<uint8_t const *>(text.data()) + 20 + Size;
        add_candidate(e, f, {Ip(bytes), static_cast<uint16_t>(port[0] << 8 | port[1])}, node_id(text.data()));
    }
}

void take_values(engine &e, find &f, lt::bdecode_node const &values)
{
    std::vector<contact> addresses;
    for (int i = 0; i < values.list_size() && i < 4 * ENGINE_REPLY_PEERS; i++) {
        auto const item = values.list_at(i);
        contact who;
        if (item.type() == lt::bdecode_node::string_t && from_compact(item.string_value(), who))
            addresses.push_back(who);
    }
    tell(e, f, addresses);
}

void take_answer(engine &e, question const &asked, lt::bdecode_node const &response)
{
    auto const body = response.type() == lt::bdecode_node::dict_t ? response.dict_find_dict("r") : lt::bdecode_node();
    auto const id = body ? body.dict_find_string("id") : lt::bdecode_node();
    bool const ok = id && id.string_length() == 20;
    if (ok)
        heard(e, asked.node, node_id(id.string_ptr()), asked.sent_ns);
    if (asked.find == 0) {
        engine_event event = {};
        event.kind = ENGINE_PINGED;
        event.token = asked.token;
        event.answered = ok;
        e.ended.push_back(event);
        return;
    }
    auto found = e.finds.find(asked.find);
    if (found == e.finds.end())
        return;
    find &f = found->second;
    auto at =
        std::find_if(f.candidates.begin(), f.candidates.end(), [&](candidate const &c) { return c.at == asked.node; });
    if (at == f.candidates.end() || at->state == step::answered || f.announcing != asked.announce)
        return;
    if (!ok) {
        /* An error, such as of a token that is too old; libtorrent's own time ran out long after ours. */
        at->state = step::dead;
    } else {
        at->state = step::answered;
        auto const token = body.dict_find_string("token");
        if (token && token.string_length() <= 64)
            at->token = std::string(token.string_value());
        auto const nodes = body.dict_find_string("nodes"), nodes6 = body.dict_find_string("nodes6");
        auto const values = body.dict_find_list("values");
        if (nodes && !f.announcing)
            take_nodes<lt::address_v4, 4>(e, f, nodes.string_value());
        if (nodes6 && !f.announcing)
            take_nodes<lt::address_v6, 16>(e, f, nodes6.string_value());
        if (values && !f.announcing)
            take_values(e, f, values);
    }
    if (pump(e, f))
        e.finds.erase(found);
}

void take_alert(engine &e, lt::alert *alert)
{
    if (auto *response = lt::alert_cast<lt::dht_direct_response_alert>(alert)) {
        auto *asked = response->userdata.get<question>();
        if (!asked || e.questions.erase(asked) == 0)
            return;
        std::unique_ptr<question> owned(asked);
        take_answer(e, *owned, response->response());
    } else if (auto *table = lt::alert_cast<lt::dht_live_nodes_alert>(alert)) {
        e.table_got_ns = e.now.ns;
        e.table_nodes = static_cast<size_t>(table->num_nodes());
        for (auto const &node : table->nodes())
            if (e.known.find(node.second) == e.known.end() && node.first != e.kept->id())
                remember(e, node.second, node.first);
    } else if (auto *mapped = lt::alert_cast<lt::portmap_alert>(alert)) {
        log_info("the router lets port %d in", mapped->external_port);
    } else if (lt::alert_cast<lt::portmap_error_alert>(alert)) {
        static struct log_burst burst;
        unsigned left_out = 0;
        if (log_burst_allows(&burst, &left_out, alert->message().c_str()))
            log_warning("dht.port_mapping: %.200s (%u more like it)", alert->message().c_str(), left_out);
    } else if (auto *failed = lt::alert_cast<lt::listen_failed_alert>(alert)) {
        log_error("the DHT node cannot move to UDP port %d of %s (%s)", failed->port,
                  failed->address.to_string().c_str(), failed->error.message().c_str());
    }
}

/* ---- addresses ----------------------------------------------------------------------------------------------------
 */

/* The address that packets to there come from. */
bool route_source(sockaddr const *to, socklen_t length, contact &source)
{
    sockaddr_storage from = {};
    socklen_t from_length = sizeof from;
    int const fd = socket(to->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool const ok = fd >= 0 && connect(fd, to, length) == 0 &&
                    getsockname(fd, reinterpret_cast<sockaddr *>(&from), &from_length) == 0 &&
                    contact_from_socket(&source, reinterpret_cast<sockaddr *>(&from));
    if (fd >= 0)
        close(fd);
    return ok;
}

bool route_source(contact const &to, contact &source)
{
    auto const at = to_endpoint(to);
    return route_source(reinterpret_cast<sockaddr const *>(at.data()), static_cast<socklen_t>(at.size()), source) &&
           !contact_is_loopback(&source);
}

bool first_interface(contact &found)
{
    ifaddrs *list = nullptr;
    bool ok = false;
    if (getifaddrs(&list) != 0)
        return false;
    for (auto const *item = list; item && !ok; item = item->ifa_next)
        ok = item->ifa_addr && item->ifa_addr->sa_family == AF_INET && (item->ifa_flags & IFF_UP) &&
             !(item->ifa_flags & IFF_LOOPBACK) && contact_from_socket(&found, item->ifa_addr);
    freeifaddrs(list);
    return ok;
}

/* Nobody is there (RFC 5737): it is the default route's source that it tells. */
contact own_address(contact const *bootstrap)
{
    contact source = {}, elsewhere = {};
    if (bootstrap && route_source(*bootstrap, source))
        return source;
    if (contact_parse(&elsewhere, "192.0.2.1:9") && route_source(elsewhere, source))
        return source;
    if (!first_interface(source))
        contact_parse(&source, "127.0.0.1:9");
    return source;
}

std::string bracketed(contact const &at)
{
    auto const ip = to_endpoint(at).address();
    return ip.is_v6() ? "[" + ip.to_string() + "]" : ip.to_string();
}

std::string interfaces(engine_options const &options, contact &first)
{
    std::string text, rest = options.address ? options.address : "";
    char port[8];
    snprintf(port, sizeof port, ":%u", options.port);
    if (rest.empty()) {
        first = own_address(options.bootstrap);
        return bracketed(first) + port;
    }
    for (bool is_first = true; !rest.empty(); is_first = false) {
        size_t const comma = rest.find(',');
        std::string const ip = rest.substr(0, comma);
        rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
        lt::error_code error;
        auto const parsed = lt::make_address(ip, error);
        if (error || parsed.is_unspecified()) {
            log_error("dht.address: '%.100s' is no address of this machine", ip.c_str());
            return "";
        }
        if (is_first)
            first = from_endpoint(parsed, 0);
        text += (is_first ? "" : ",") + (parsed.is_v6() ? "[" + ip + "]" : ip) + port;
    }
    return text;
}

/* Whether no interface has it any more. */
bool is_gone(contact const &at)
{
    contact any = at;
    contact_set_port(&any, 0);
    auto const name = to_endpoint(any);
    int const fd = socket(name.data()->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool const gone =
        fd >= 0 && bind(fd, name.data(), static_cast<socklen_t>(name.size())) != 0 && errno == EADDRNOTAVAIL;
    if (fd >= 0)
        close(fd);
    return gone;
}

/* A machine that came to another network, or had none when we began, has another address. */
void follow_address(engine &e)
{
    char before[CONTACT_TEXT], after[CONTACT_TEXT];
    if (!e.follows || e.now.ns < e.next_look_ns)
        return;
    e.next_look_ns = e.now.ns + look_ns;
    if (!contact_is_loopback(&e.reached_at) && !is_gone(e.reached_at))
        return;
    contact at = own_address(e.bootstrap.get());
    contact_set_port(&at, contact_port(&e.reached_at));
    if (contact_is_loopback(&at) || same_host(at, e.reached_at))
        return;
    log_warning("this machine's address has changed: the DHT node moves from %s to %s; frontend.advertise is as it was",
                contact_format(&e.reached_at, before), contact_format(&at, after));
    e.reached_at = at;
    lt::settings_pack moved;
    moved.set_str(lt::settings_pack::listen_interfaces, bracketed(at) + ":" + std::to_string(contact_port(&at)));
    e.session->apply_settings(std::move(moved));
    /* Its routing table begins anew. */
    for (auto const &node : e.known)
        e.session->add_dht_node({node.first.address().to_string(), node.first.port()});
    engine_event event = {};
    event.kind = ENGINE_MOVED;
    e.ended.push_back(event);
}

/* ---- life ---------------------------------------------------------------------------------------------------------
 */

lt::settings_pack settings(std::string const &listen, bool mapping)
{
    lt::settings_pack made;
    made.set_str(lt::settings_pack::user_agent, "expertd/" EXPERTD_VERSION);
    made.set_str(lt::settings_pack::listen_interfaces, listen);
    made.set_str(lt::settings_pack::dht_bootstrap_nodes, ""); /* not the world's */
    made.set_bool(lt::settings_pack::enable_dht, true);
    made.set_bool(lt::settings_pack::enable_lsd, false);
    made.set_bool(lt::settings_pack::enable_upnp, mapping);
    made.set_bool(lt::settings_pack::enable_natpmp, mapping);
    made.set_bool(lt::settings_pack::enable_incoming_tcp, false);
    made.set_bool(lt::settings_pack::enable_outgoing_tcp, false);
    made.set_bool(lt::settings_pack::enable_incoming_utp, false);
    made.set_bool(lt::settings_pack::enable_outgoing_utp, false);
    made.set_bool(lt::settings_pack::listen_system_port_fallback, false);
    made.set_int(lt::settings_pack::max_retry_port_bind, 0);
    /* A private network has private addresses, and many nodes on one. */
    made.set_bool(lt::settings_pack::dht_restrict_routing_ips, false);
    made.set_bool(lt::settings_pack::dht_restrict_search_ips, false);
    made.set_bool(lt::settings_pack::dht_ignore_dark_internet, false);
    made.set_bool(lt::settings_pack::dht_enforce_node_id, false);
    made.set_bool(lt::settings_pack::dht_prefer_verified_node_ids, false);
    made.set_int(lt::settings_pack::dht_block_ratelimit, 20000);
    made.set_int(lt::settings_pack::dht_upload_rate_limit, 100000000);
    made.set_int(lt::settings_pack::recv_socket_buffer_size, 4 << 20);
    made.set_int(lt::settings_pack::alert_queue_size, 1 << 20); /* each is an answer to a question of ours */
    made.set_int(lt::settings_pack::alert_mask,
                 static_cast<int>(static_cast<std::uint32_t>(lt::alert_category::status | lt::alert_category::error |
                                                             lt::alert_category::port_mapping)));
    return made;
}

/* Until the port is had, or not. */
int take_listening(engine &e, bool &listens)
{
    std::vector<lt::alert *> alerts;
    e.session->wait_for_alert(lt::milliseconds(listens ? 1 : 100));
    e.session->pop_alerts(&alerts);
    for (auto *alert : alerts) {
        if (auto *failed = lt::alert_cast<lt::listen_failed_alert>(alert)) {
            log_error("cannot run a DHT node on UDP port %d of %s (%s): set dht.port, or dht.address", failed->port,
                      failed->address.to_string().c_str(), failed->error.message().c_str());
            return failed->error.value() > 0 ? -failed->error.value() : -EADDRINUSE;
        }
        auto *listening = lt::alert_cast<lt::listen_succeeded_alert>(alert);
        if (listening && listening->socket_type == lt::socket_type_t::utp &&
            same_host(e.reached_at, from_endpoint(listening->address, 0))) {
            contact_set_port(&e.reached_at, static_cast<uint16_t>(listening->port));
            listens = true;
        }
    }
    return 0;
}

/* Until its node runs, too: before, questions would be lost. */
int await_running(engine &e)
{
    bool listens = false;
    for (uint64_t const end_ns = clock_now_ns() + listen_ms * NS_PER_MS; clock_now_ns() < end_ns;) {
        int const rc = take_listening(e, listens);
        if (rc != 0 || (listens && e.session->is_dht_running()))
            return rc;
    }
    log_error("the DHT node does not come up");
    return -ETIMEDOUT;
}

int start(engine &e, engine_options const &options)
{
    e.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (e.fd < 0) {
        int const rc = -errno;
        log_error("cannot make an eventfd: %s", strerror(-rc));
        return rc;
    }
    std::string const listen = interfaces(options, e.reached_at);
    if (listen.empty())
        return -EINVAL;
    e.mapping = options.port_mapping;
    e.follows = !options.address || !*options.address;
    if (options.bootstrap)
        e.bootstrap = std::make_unique<contact>(*options.bootstrap);
    lt::session_params params(settings(listen, options.port_mapping), std::vector<std::shared_ptr<lt::plugin>>());
    params.disk_io_constructor = lt::disabled_disk_io_constructor;
    params.dht_storage_constructor = [&e](lt::settings_interface const &) {
        auto kept = std::make_unique<keeper>(e.fd);
        e.kept = kept.get();
        return kept;
    };
    e.session = std::make_unique<lt::session>(std::move(params));
    int const rc = await_running(e);
    if (rc == 0)
        e.session->set_alert_notify([fd = e.fd] { ring(fd); });
    return rc;
}

void take_alerts(engine &e)
{
    eventfd_t rings;
    std::vector<lt::alert *> alerts;
    /* Before the queue is emptied: what comes after rings again. */
    if (eventfd_read(e.fd, &rings) != 0 && errno != EAGAIN)
        log_debug("cannot read an eventfd: %s", strerror(errno));
    e.session->pop_alerts(&alerts);
    for (auto *alert : alerts)
        take_alert(e, alert);
}

void tell_fresh(engine &e)
{
    for (auto const &item : e.kept->take_fresh()) {
        engine_event event = {};
        event.kind = ENGINE_KEPT;
        event.token = item.first;
        event.addresses = &item.second;
        event.count = 1;
        e.sink(e.context, &event, e.now);
    }
}

uint64_t step_finds(engine &e)
{
    uint64_t next_ns = UINT64_MAX;
    for (auto at = e.finds.begin(); at != e.finds.end();) {
        if (e.now.ns >= at->second.due_ns && pump(e, at->second)) {
            at = e.finds.erase(at);
            continue;
        }
        next_ns = std::min(next_ns, at->second.due_ns);
        ++at;
    }
    start_waiting(e);
    next_ns = std::min(next_ns, ask_table(e));
    for (auto const &f : e.finds)
        next_ns = std::min(next_ns, f.second.due_ns);
    return next_ns;
}

/* What may throw (memory, a system's refusal) is said, and survived. */
template <typename Call> void guarded(char const *what, Call call) noexcept
{
    try {
        call();
    } catch (std::exception const &error) {
        log_error("the DHT cannot %s: %s", what, error.what());
    }
}

void enqueue(engine &e, char const *key, uint16_t port, uint64_t token)
{
    find f;
    f.number = ++e.last_number;
    f.key = lt::hasher(key, static_cast<int>(std::strlen(key))).final();
    f.token = token;
    f.port = port;
    if (port == 0)
        e.kept->watch(f.key, token);
    e.waiting.push_back(std::move(f));
}

} // namespace

int engine_start(struct engine **engine, const struct engine_options *options)
{
    int rc = -ENOMEM;
    *engine = nullptr;
    guarded("start", [&] {
        auto made = std::make_unique<struct engine>();
        rc = -EIO;
        rc = start(*made, *options);
        if (rc == 0)
            *engine = made.release();
    });
    return rc;
}

void engine_stop(struct engine **engine)
{
    struct engine *old = *engine;
    *engine = nullptr;
    guarded("stop", [&] { delete old; });
}

int engine_fd(const struct engine *engine)
{
    return engine->fd;
}

uint64_t engine_step(struct engine *engine, struct moment now, engine_sink sink, void *context)
{
    uint64_t next_ns = now.ns;
    guarded("go on", [&] {
        engine->now = now;
        engine->sink = sink;
        engine->context = context;
        follow_address(*engine);
        take_alerts(*engine);
        tell_fresh(*engine);
        next_ns = step_finds(*engine);
        /* The sink may begin others. */
        std::vector<engine_event> ended;
        std::swap(ended, engine->ended);
        for (auto const &event : ended)
            sink(context, &event, now);
        if (!ended.empty())
            next_ns = step_finds(*engine);
        if (!engine->ended.empty())
            next_ns = now.ns;
        if (engine->follows)
            next_ns = std::min(next_ns, engine->next_look_ns);
    });
    return next_ns;
}

void engine_find(struct engine *engine, const char *key, uint64_t token)
{
    guarded("find", [&] { enqueue(*engine, key, 0, token); });
}

void engine_announce(struct engine *engine, const char *key, uint16_t port, uint64_t token)
{
    guarded("announce", [&] { enqueue(*engine, key, port, token); });
}

void engine_bootstrap(struct engine *engine, const struct contact *node, uint64_t token)
{
    guarded("join", [&] {
        lt::entry what;
        what["y"] = "q";
        what["q"] = "ping";
        what["a"] = lt::entry::dictionary_type();
        engine->now = moment_now();
        ask(*engine, to_endpoint(*node), 0, false, token, what);
    });
}

void engine_map_port(struct engine *engine, uint16_t outside, uint16_t port)
{
    guarded("map a port", [&] {
        if (engine->mapping)
            engine->session->add_port_mapping(lt::portmap_protocol::tcp, outside, port);
    });
}

uint16_t engine_port(const struct engine *engine)
{
    return contact_port(&engine->reached_at);
}

struct contact engine_address(const struct engine *engine)
{
    return engine->reached_at;
}

const char *engine_id_text(const struct engine *engine, char text[ENGINE_ID_TEXT])
{
    text[0] = '\0';
    guarded("tell its id", [&] {
        node_id const id = engine->kept->id();
        for (int i = 0; i < 20; i++)
            snprintf(text + 2 * i, 3, "%02x", id[i]);
    });
    return text;
}

size_t engine_nodes(const struct engine *engine)
{
    return engine->live;
}

size_t engine_table_nodes(const struct engine *engine)
{
    return engine->table_nodes;
}
