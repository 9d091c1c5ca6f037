//! System calls the seccomp profiles name, with their numbers on this architecture.
//!
//! Facts only: the parent module turns them into filters. 32-bit ABIs are left out, so they are never allowed.

/// A system call's name and number.
pub type Call = (&'static str, i64);

/// Allowed to every container under RuntimeDefault, on every architecture.
#[rustfmt::skip]
pub const ALLOWED: &[Call] = &[
    ("accept", libc::SYS_accept), ("accept4", libc::SYS_accept4), ("adjtimex", libc::SYS_adjtimex), ("bind", libc::SYS_bind),
    ("brk", libc::SYS_brk), ("capget", libc::SYS_capget), ("capset", libc::SYS_capset), ("chdir", libc::SYS_chdir),
    ("clock_adjtime", libc::SYS_clock_adjtime), ("clock_getres", libc::SYS_clock_getres), ("clock_gettime", libc::SYS_clock_gettime),
    ("clock_nanosleep", libc::SYS_clock_nanosleep), ("close", libc::SYS_close), ("close_range", libc::SYS_close_range),
    ("connect", libc::SYS_connect), ("copy_file_range", libc::SYS_copy_file_range), ("dup", libc::SYS_dup), ("dup3", libc::SYS_dup3),
    ("epoll_create1", libc::SYS_epoll_create1), ("epoll_ctl", libc::SYS_epoll_ctl), ("epoll_pwait", libc::SYS_epoll_pwait),
    ("epoll_pwait2", libc::SYS_epoll_pwait2), ("eventfd2", libc::SYS_eventfd2), ("execve", libc::SYS_execve),
    ("execveat", libc::SYS_execveat), ("exit", libc::SYS_exit), ("exit_group", libc::SYS_exit_group), ("faccessat", libc::SYS_faccessat),
    ("faccessat2", libc::SYS_faccessat2), ("fadvise64", libc::SYS_fadvise64), ("fallocate", libc::SYS_fallocate),
    ("fanotify_mark", libc::SYS_fanotify_mark), ("fchdir", libc::SYS_fchdir), ("fchmod", libc::SYS_fchmod),
    ("fchmodat", libc::SYS_fchmodat), ("fchown", libc::SYS_fchown), ("fchownat", libc::SYS_fchownat), ("fcntl", libc::SYS_fcntl),
    ("fdatasync", libc::SYS_fdatasync), ("fgetxattr", libc::SYS_fgetxattr), ("flistxattr", libc::SYS_flistxattr),
    ("flock", libc::SYS_flock), ("fremovexattr", libc::SYS_fremovexattr), ("fsetxattr", libc::SYS_fsetxattr), ("fstat", libc::SYS_fstat),
    ("fstatfs", libc::SYS_fstatfs), ("fsync", libc::SYS_fsync), ("ftruncate", libc::SYS_ftruncate), ("futex", libc::SYS_futex),
    ("futex_waitv", libc::SYS_futex_waitv), ("getcpu", libc::SYS_getcpu), ("getcwd", libc::SYS_getcwd),
    ("getdents64", libc::SYS_getdents64), ("getegid", libc::SYS_getegid), ("geteuid", libc::SYS_geteuid), ("getgid", libc::SYS_getgid),
    ("getgroups", libc::SYS_getgroups), ("getitimer", libc::SYS_getitimer), ("getpeername", libc::SYS_getpeername),
    ("getpgid", libc::SYS_getpgid), ("getpid", libc::SYS_getpid), ("getppid", libc::SYS_getppid), ("getpriority", libc::SYS_getpriority),
    ("getrandom", libc::SYS_getrandom), ("getresgid", libc::SYS_getresgid), ("getresuid", libc::SYS_getresuid),
    ("get_robust_list", libc::SYS_get_robust_list), ("getrusage", libc::SYS_getrusage), ("getsid", libc::SYS_getsid),
    ("getsockname", libc::SYS_getsockname), ("getsockopt", libc::SYS_getsockopt), ("gettid", libc::SYS_gettid),
    ("gettimeofday", libc::SYS_gettimeofday), ("getuid", libc::SYS_getuid), ("getxattr", libc::SYS_getxattr),
    ("inotify_add_watch", libc::SYS_inotify_add_watch), ("inotify_init1", libc::SYS_inotify_init1),
    ("inotify_rm_watch", libc::SYS_inotify_rm_watch), ("io_cancel", libc::SYS_io_cancel), ("ioctl", libc::SYS_ioctl),
    ("io_destroy", libc::SYS_io_destroy), ("io_getevents", libc::SYS_io_getevents), ("ioprio_get", libc::SYS_ioprio_get),
    ("ioprio_set", libc::SYS_ioprio_set), ("io_setup", libc::SYS_io_setup), ("io_submit", libc::SYS_io_submit), ("kill", libc::SYS_kill),
    ("landlock_add_rule", libc::SYS_landlock_add_rule), ("landlock_create_ruleset", libc::SYS_landlock_create_ruleset),
    ("landlock_restrict_self", libc::SYS_landlock_restrict_self), ("lgetxattr", libc::SYS_lgetxattr), ("linkat", libc::SYS_linkat),
    ("listen", libc::SYS_listen), ("listxattr", libc::SYS_listxattr), ("llistxattr", libc::SYS_llistxattr),
    ("lremovexattr", libc::SYS_lremovexattr), ("lseek", libc::SYS_lseek), ("lsetxattr", libc::SYS_lsetxattr),
    ("madvise", libc::SYS_madvise), ("membarrier", libc::SYS_membarrier), ("memfd_create", libc::SYS_memfd_create),
    ("memfd_secret", libc::SYS_memfd_secret), ("mincore", libc::SYS_mincore), ("mkdirat", libc::SYS_mkdirat),
    ("mknodat", libc::SYS_mknodat), ("mlock", libc::SYS_mlock), ("mlock2", libc::SYS_mlock2), ("mlockall", libc::SYS_mlockall),
    ("mmap", libc::SYS_mmap), ("mprotect", libc::SYS_mprotect), ("mq_getsetattr", libc::SYS_mq_getsetattr),
    ("mq_notify", libc::SYS_mq_notify), ("mq_open", libc::SYS_mq_open), ("mq_timedreceive", libc::SYS_mq_timedreceive),
    ("mq_timedsend", libc::SYS_mq_timedsend), ("mq_unlink", libc::SYS_mq_unlink), ("mremap", libc::SYS_mremap),
    ("msgctl", libc::SYS_msgctl), ("msgget", libc::SYS_msgget), ("msgrcv", libc::SYS_msgrcv), ("msgsnd", libc::SYS_msgsnd),
    ("msync", libc::SYS_msync), ("munlock", libc::SYS_munlock), ("munlockall", libc::SYS_munlockall), ("munmap", libc::SYS_munmap),
    ("name_to_handle_at", libc::SYS_name_to_handle_at), ("nanosleep", libc::SYS_nanosleep), ("newfstatat", libc::SYS_newfstatat),
    ("openat", libc::SYS_openat), ("openat2", libc::SYS_openat2), ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal), ("pipe2", libc::SYS_pipe2), ("pkey_alloc", libc::SYS_pkey_alloc),
    ("pkey_free", libc::SYS_pkey_free), ("pkey_mprotect", libc::SYS_pkey_mprotect), ("ppoll", libc::SYS_ppoll),
    ("prctl", libc::SYS_prctl), ("pread64", libc::SYS_pread64), ("preadv", libc::SYS_preadv), ("preadv2", libc::SYS_preadv2),
    ("prlimit64", libc::SYS_prlimit64), ("process_mrelease", libc::SYS_process_mrelease), ("pselect6", libc::SYS_pselect6),
    ("pwrite64", libc::SYS_pwrite64), ("pwritev", libc::SYS_pwritev), ("pwritev2", libc::SYS_pwritev2), ("read", libc::SYS_read),
    ("readahead", libc::SYS_readahead), ("readlinkat", libc::SYS_readlinkat), ("readv", libc::SYS_readv),
    ("recvfrom", libc::SYS_recvfrom), ("recvmmsg", libc::SYS_recvmmsg), ("recvmsg", libc::SYS_recvmsg),
    ("remap_file_pages", libc::SYS_remap_file_pages), ("removexattr", libc::SYS_removexattr), ("renameat2", libc::SYS_renameat2),
    ("restart_syscall", libc::SYS_restart_syscall), ("rseq", libc::SYS_rseq), ("rt_sigaction", libc::SYS_rt_sigaction),
    ("rt_sigpending", libc::SYS_rt_sigpending), ("rt_sigprocmask", libc::SYS_rt_sigprocmask),
    ("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo), ("rt_sigreturn", libc::SYS_rt_sigreturn), ("rt_sigsuspend", libc::SYS_rt_sigsuspend),
    ("rt_sigtimedwait", libc::SYS_rt_sigtimedwait), ("rt_tgsigqueueinfo", libc::SYS_rt_tgsigqueueinfo),
    ("sched_getaffinity", libc::SYS_sched_getaffinity), ("sched_getattr", libc::SYS_sched_getattr),
    ("sched_getparam", libc::SYS_sched_getparam), ("sched_get_priority_max", libc::SYS_sched_get_priority_max),
    ("sched_get_priority_min", libc::SYS_sched_get_priority_min), ("sched_getscheduler", libc::SYS_sched_getscheduler),
    ("sched_rr_get_interval", libc::SYS_sched_rr_get_interval), ("sched_setaffinity", libc::SYS_sched_setaffinity),
    ("sched_setattr", libc::SYS_sched_setattr), ("sched_setparam", libc::SYS_sched_setparam),
    ("sched_setscheduler", libc::SYS_sched_setscheduler), ("sched_yield", libc::SYS_sched_yield), ("seccomp", libc::SYS_seccomp),
    ("semctl", libc::SYS_semctl), ("semget", libc::SYS_semget), ("semop", libc::SYS_semop), ("semtimedop", libc::SYS_semtimedop),
    ("sendfile", libc::SYS_sendfile), ("sendmmsg", libc::SYS_sendmmsg), ("sendmsg", libc::SYS_sendmsg), ("sendto", libc::SYS_sendto),
    ("setfsgid", libc::SYS_setfsgid), ("setfsuid", libc::SYS_setfsuid), ("setgid", libc::SYS_setgid), ("setgroups", libc::SYS_setgroups),
    ("setitimer", libc::SYS_setitimer), ("setpgid", libc::SYS_setpgid), ("setpriority", libc::SYS_setpriority),
    ("setregid", libc::SYS_setregid), ("setresgid", libc::SYS_setresgid), ("setresuid", libc::SYS_setresuid),
    ("setreuid", libc::SYS_setreuid), ("set_robust_list", libc::SYS_set_robust_list), ("setsid", libc::SYS_setsid),
    ("setsockopt", libc::SYS_setsockopt), ("set_tid_address", libc::SYS_set_tid_address), ("setuid", libc::SYS_setuid),
    ("setxattr", libc::SYS_setxattr), ("shmat", libc::SYS_shmat), ("shmctl", libc::SYS_shmctl), ("shmdt", libc::SYS_shmdt),
    ("shmget", libc::SYS_shmget), ("shutdown", libc::SYS_shutdown), ("sigaltstack", libc::SYS_sigaltstack),
    ("signalfd4", libc::SYS_signalfd4), ("socketpair", libc::SYS_socketpair), ("splice", libc::SYS_splice), ("statfs", libc::SYS_statfs),
    ("statx", libc::SYS_statx), ("symlinkat", libc::SYS_symlinkat), ("sync", libc::SYS_sync), ("syncfs", libc::SYS_syncfs),
    ("sysinfo", libc::SYS_sysinfo), ("tee", libc::SYS_tee), ("tgkill", libc::SYS_tgkill), ("timer_create", libc::SYS_timer_create),
    ("timer_delete", libc::SYS_timer_delete), ("timer_getoverrun", libc::SYS_timer_getoverrun),
    ("timer_gettime", libc::SYS_timer_gettime), ("timer_settime", libc::SYS_timer_settime), ("timerfd_create", libc::SYS_timerfd_create),
    ("timerfd_gettime", libc::SYS_timerfd_gettime), ("timerfd_settime", libc::SYS_timerfd_settime), ("times", libc::SYS_times),
    ("tkill", libc::SYS_tkill), ("truncate", libc::SYS_truncate), ("umask", libc::SYS_umask), ("uname", libc::SYS_uname),
    ("unlinkat", libc::SYS_unlinkat), ("utimensat", libc::SYS_utimensat), ("vmsplice", libc::SYS_vmsplice), ("wait4", libc::SYS_wait4),
    ("waitid", libc::SYS_waitid), ("write", libc::SYS_write), ("writev", libc::SYS_writev), ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv), ("process_vm_writev", libc::SYS_process_vm_writev),
];

#[cfg(target_arch = "x86_64")]
/// The same, for the older calls that only this architecture has.
#[rustfmt::skip]
pub const ALLOWED_HERE: &[Call] = &[
    ("access", libc::SYS_access), ("alarm", libc::SYS_alarm), ("chmod", libc::SYS_chmod), ("chown", libc::SYS_chown),
    ("creat", libc::SYS_creat), ("dup2", libc::SYS_dup2), ("epoll_create", libc::SYS_epoll_create), ("epoll_wait", libc::SYS_epoll_wait),
    ("eventfd", libc::SYS_eventfd), ("fchmodat2", libc::SYS_fchmodat2), ("fork", libc::SYS_fork), ("futimesat", libc::SYS_futimesat),
    ("getdents", libc::SYS_getdents), ("getpgrp", libc::SYS_getpgrp), ("getrlimit", libc::SYS_getrlimit),
    ("get_thread_area", libc::SYS_get_thread_area), ("inotify_init", libc::SYS_inotify_init), ("lchown", libc::SYS_lchown),
    ("link", libc::SYS_link), ("lstat", libc::SYS_lstat), ("mkdir", libc::SYS_mkdir), ("mknod", libc::SYS_mknod),
    ("open", libc::SYS_open), ("pause", libc::SYS_pause), ("pipe", libc::SYS_pipe), ("poll", libc::SYS_poll),
    ("readlink", libc::SYS_readlink), ("rename", libc::SYS_rename), ("renameat", libc::SYS_renameat), ("rmdir", libc::SYS_rmdir),
    ("select", libc::SYS_select), ("setrlimit", libc::SYS_setrlimit), ("set_thread_area", libc::SYS_set_thread_area),
    ("signalfd", libc::SYS_signalfd), ("stat", libc::SYS_stat), ("symlink", libc::SYS_symlink),
    ("sync_file_range", libc::SYS_sync_file_range), ("time", libc::SYS_time), ("unlink", libc::SYS_unlink), ("utime", libc::SYS_utime),
    ("utimes", libc::SYS_utimes), ("vfork", libc::SYS_vfork),
];

/// The same, for the older calls that only this architecture has.
#[cfg(not(target_arch = "x86_64"))]
pub const ALLOWED_HERE: &[Call] = &[];

/// Allowed by capability or by argument.
#[rustfmt::skip]
pub const CONDITIONAL: &[Call] = &[
    ("acct", libc::SYS_acct), ("bpf", libc::SYS_bpf), ("chroot", libc::SYS_chroot), ("clock_settime", libc::SYS_clock_settime),
    ("clone", libc::SYS_clone), ("clone3", libc::SYS_clone3), ("delete_module", libc::SYS_delete_module),
    ("fanotify_init", libc::SYS_fanotify_init), ("finit_module", libc::SYS_finit_module), ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount), ("fsopen", libc::SYS_fsopen), ("fspick", libc::SYS_fspick),
    ("get_mempolicy", libc::SYS_get_mempolicy), ("init_module", libc::SYS_init_module), ("kcmp", libc::SYS_kcmp),
    ("lookup_dcookie", libc::SYS_lookup_dcookie), ("mbind", libc::SYS_mbind), ("mount", libc::SYS_mount),
    ("mount_setattr", libc::SYS_mount_setattr), ("move_mount", libc::SYS_move_mount), ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("open_tree", libc::SYS_open_tree), ("perf_event_open", libc::SYS_perf_event_open), ("personality", libc::SYS_personality),
    ("pidfd_getfd", libc::SYS_pidfd_getfd), ("process_madvise", libc::SYS_process_madvise), ("quotactl", libc::SYS_quotactl),
    ("quotactl_fd", libc::SYS_quotactl_fd), ("reboot", libc::SYS_reboot), ("set_mempolicy", libc::SYS_set_mempolicy),
    ("setdomainname", libc::SYS_setdomainname), ("sethostname", libc::SYS_sethostname), ("setns", libc::SYS_setns),
    ("settimeofday", libc::SYS_settimeofday), ("socket", libc::SYS_socket), ("syslog", libc::SYS_syslog), ("umount2", libc::SYS_umount2),
    ("unshare", libc::SYS_unshare), ("vhangup", libc::SYS_vhangup),
];

#[cfg(target_arch = "x86_64")]
/// The same, only on this architecture.
#[rustfmt::skip]
pub const CONDITIONAL_HERE: &[Call] = &[
    ("arch_prctl", libc::SYS_arch_prctl), ("ioperm", libc::SYS_ioperm), ("iopl", libc::SYS_iopl), ("modify_ldt", libc::SYS_modify_ldt),
];

/// The same, only on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub const CONDITIONAL_HERE: &[Call] = &[];

/// What each capability (by number) adds.
pub const BY_CAPABILITY: &[(u32, &[&str])] = &[
    // CAP_DAC_READ_SEARCH
    (2, &["open_by_handle_at"]),
    // CAP_SYS_ADMIN
    (
        21,
        &[
            "bpf",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount2",
            "unshare",
        ],
    ),
    // CAP_SYS_BOOT
    (22, &["reboot"]),
    // CAP_SYS_CHROOT
    (18, &["chroot"]),
    // CAP_SYS_MODULE
    (16, &["delete_module", "init_module", "finit_module"]),
    // CAP_SYS_PACCT
    (20, &["acct"]),
    // CAP_SYS_PTRACE
    (19, &["kcmp", "pidfd_getfd", "process_madvise"]),
    // CAP_SYS_RAWIO
    (17, &["iopl", "ioperm"]),
    // CAP_SYS_TIME
    (25, &["settimeofday", "clock_settime"]),
    // CAP_SYS_TTY_CONFIG
    (26, &["vhangup"]),
    // CAP_SYS_NICE
    (23, &["get_mempolicy", "mbind", "set_mempolicy"]),
    // CAP_SYSLOG
    (34, &["syslog"]),
    // CAP_BPF
    (39, &["bpf"]),
    // CAP_PERFMON
    (38, &["perf_event_open"]),
];
