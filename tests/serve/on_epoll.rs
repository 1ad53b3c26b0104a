//! The same, by the other driver: whatever depends on the kernel at all.

use crate as serve;
use crate::gate::on_epoll;
use crate::policies;
use crate::proxy;
use crate::shards;

macro_rules! again {
    ($($home:ident::$test:ident),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                on_epoll($home::$test);
            }
        )+
    };
}

again!(
    serve::a_client_comes_and_goes_and_the_feed_says_so,
    serve::a_second_login_takes_over_and_the_first_is_told,
    serve::whoever_comes_back_has_a_larger_epoch,
    serve::a_reset_is_told_from_a_close,
    serve::whatever_bytes_come_the_loop_goes_on,
    serve::two_thousand_bad_callers_are_a_few_lines_in_the_log,
    serve::a_full_server_refuses_politely_and_opens_again,
    serve::a_server_that_pings_is_answered,
    serve::sigterm_sends_everybody_away_and_ends_the_ledger,
    serve::a_second_sigterm_does_not_wait,
    serve::three_thousand_clients_each_end_as_they_do_and_the_ledger_has_no_gap,
    serve::a_feed_that_nobody_reads_does_not_hold_up_the_end,
    serve::the_python_client_written_from_the_manual_gets_along,
    policies::a_session_lost_by_a_reset_is_resumed_within_the_grace_and_was_never_offline,
    policies::the_crates_own_client_resumes_by_itself,
    policies::a_class_that_rejects_keeps_the_older_login,
    policies::a_silent_client_is_asked_before_the_verdict_and_not_after_its_timeout,
    policies::transport_events_are_a_stream_of_their_own,
    proxy::it_is_the_same_over_shards_and_a_silent_client_is_found,
    shards::silence_is_noticed_in_time_wherever_the_connection_came_in,
    shards::a_second_login_takes_over_whichever_shard_takes_the_call,
    shards::a_lost_session_is_resumed_whichever_shard_takes_the_call,
    shards::no_byte_is_lost_on_the_way_however_the_first_ones_are_cut,
    shards::sigterm_in_a_storm_ends_all_shards_in_time,
);
