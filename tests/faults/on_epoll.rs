//! The same, by the other driver: where the kernel's part is largest.

use crate::gate::on_epoll;
use crate::{death, files, flood, slow, stall};

macro_rules! again {
    ($($theme:ident::$test:ident),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                println!("on epoll");
                on_epoll($theme::$test);
            }
        )+
    };
}

again!(
    stall::after_a_stop_of_twice_the_timeout_the_living_are_online_and_the_dead_are_found,
    death::when_a_fleet_is_killed_each_of_its_connections_ends_once,
    death::when_ten_thousand_fall_silent_in_one_instant_the_survivors_notice_nothing,
    flood::while_some_flood_the_quiet_are_answered_and_the_dead_are_found,
    flood::rubbish_on_sixty_four_connections_costs_nobody_else_a_beat,
    slow::clients_that_never_read_are_ended_and_cost_no_more_than_their_outboxes,
    files::with_ordinary_descriptors_a_storm_beyond_the_file_limit_is_refused_and_passes,
    files::when_no_file_is_left_newcomers_wait_and_come_in_later,
);
