//! What can be counted: upstream's names, labels and buckets. Requests' own families are in `requests`.

telemetry::metrics_table! {
    ADMISSION_CONTROLLER_DURATION Histogram STABLE "apiserver_admission_controller_admission_duration_seconds"
        ["name" "operation" "rejected" "type"] [0.005 0.025 0.1 0.5 1.0 2.5]
        "Time taken by an admission plugin."
    ADMISSION_STEP_DURATION Histogram STABLE "apiserver_admission_step_admission_duration_seconds"
        ["operation" "rejected" "type"] [0.005 0.025 0.1 0.5 1.0 2.5]
        "Time taken by all plugins of a step of admission."
    ADMISSION_WEBHOOK_DURATION Histogram STABLE "apiserver_admission_webhook_admission_duration_seconds"
        ["name" "operation" "rejected" "type"] [0.005 0.025 0.1 0.5 1.0 2.5 10.0 25.0]
        "Time taken by an admission webhook."
    ADMISSION_WEBHOOK_REJECTIONS Counter ALPHA "apiserver_admission_webhook_rejection_count"
        ["error_type" "name" "operation" "rejection_code" "type"] []
        "Requests a webhook refused or failed on."
    ADMISSION_WEBHOOK_FAIL_OPEN Counter ALPHA "apiserver_admission_webhook_fail_open_count"
        ["name" "type"] []
        "Requests let through although a webhook failed."
    ADMISSION_WEBHOOK_REQUESTS Counter ALPHA "apiserver_admission_webhook_request_total"
        ["code" "name" "operation" "rejected" "type"] []
        "Calls of admission webhooks."
    AUDIT_EVENTS Counter ALPHA "apiserver_audit_event_total"
        [] []
        "Audit events sent to the backend."
    AUDIT_ERRORS Counter ALPHA "apiserver_audit_error_total"
        ["plugin"] []
        "Audit events that could not be kept."
    AUDIT_LEVEL Counter ALPHA "apiserver_audit_level_total"
        ["level"] []
        "Requests by the level they were audited at."
    FLOW_REJECTED Counter BETA "apiserver_flowcontrol_rejected_requests_total"
        ["flow_schema" "priority_level" "reason"] []
        "Requests refused by flow control."
    FLOW_DISPATCHED Counter BETA "apiserver_flowcontrol_dispatched_requests_total"
        ["flow_schema" "priority_level"] []
        "Requests flow control let run."
    FLOW_INQUEUE Gauge BETA "apiserver_flowcontrol_current_inqueue_requests"
        ["flow_schema" "priority_level"] []
        "Requests waiting in queues."
    FLOW_EXECUTING Gauge BETA "apiserver_flowcontrol_current_executing_requests"
        ["flow_schema" "priority_level"] []
        "Requests running."
    FLOW_EXECUTING_SEATS Gauge BETA "apiserver_flowcontrol_current_executing_seats"
        ["flow_schema" "priority_level"] []
        "Seats of the running requests."
    FLOW_WAIT Histogram BETA "apiserver_flowcontrol_request_wait_duration_seconds"
        ["execute" "flow_schema" "priority_level"] [0.0 0.005 0.02 0.05 0.1 0.2 0.5 1.0 2.0 5.0 10.0 15.0 30.0]
        "Time requests spent in queues."
    FLOW_EXECUTION Histogram ALPHA "apiserver_flowcontrol_request_execution_seconds"
        ["flow_schema" "priority_level" "type"] [0.0 0.005 0.02 0.05 0.1 0.2 0.5 1.0 2.0 5.0 10.0 15.0 30.0]
        "Time requests ran."
    FLOW_ESTIMATED_SEATS Histogram ALPHA "apiserver_flowcontrol_work_estimated_seats"
        ["flow_schema" "priority_level"] [1.0 2.0 4.0 8.0 16.0 32.0 64.0 100.0]
        "Seats a request was taken to need."
    FLOW_NOMINAL_LIMIT Gauge BETA "apiserver_flowcontrol_nominal_limit_seats"
        ["priority_level"] []
        "Seats of a level by its shares."
    FLOW_LOWER_LIMIT Gauge ALPHA "apiserver_flowcontrol_lower_limit_seats"
        ["priority_level"] []
        "Seats a level keeps at least."
    FLOW_UPPER_LIMIT Gauge ALPHA "apiserver_flowcontrol_upper_limit_seats"
        ["priority_level"] []
        "Seats a level may have at most."
    FLOW_CURRENT_LIMIT Gauge ALPHA "apiserver_flowcontrol_current_limit_seats"
        ["priority_level"] []
        "Seats a level has now."
    FLOW_DEMAND_PEAK Gauge ALPHA "apiserver_flowcontrol_demand_seats_high_watermark"
        ["priority_level"] []
        "Most seats wanted in the last period."
    FLOW_DEMAND_AVERAGE Gauge ALPHA "apiserver_flowcontrol_demand_seats_average"
        ["priority_level"] []
        "Seats wanted on average in the last period."
    FLOW_DEMAND_STDEV Gauge ALPHA "apiserver_flowcontrol_demand_seats_stdev"
        ["priority_level"] []
        "Deviation of the seats wanted in the last period."
    FLOW_DEMAND_SMOOTHED Gauge ALPHA "apiserver_flowcontrol_demand_seats_smoothed"
        ["priority_level"] []
        "Smoothed demand of seats."
    FLOW_TARGET Gauge ALPHA "apiserver_flowcontrol_target_seats"
        ["priority_level"] []
        "Seats a level was to have in the last period."
    FLOW_FAIR_FRAC Gauge ALPHA "apiserver_flowcontrol_seat_fair_frac"
        [] []
        "Fraction of its target every level gets that is at no bound."
    INIT_EVENTS Counter ALPHA "apiserver_init_events_total"
        ["group" "resource"] []
        "Events a watch began with."
    REQUEST_BODY_SIZE Histogram ALPHA "apiserver_request_body_size_bytes"
        ["group" "resource" "verb"] [50000.0 150000.0 250000.0 350000.0 450000.0 550000.0 650000.0 750000.0 850000.0 950000.0 1050000.0 1150000.0 1250000.0 1350000.0 1450000.0 1550000.0 1650000.0 1750000.0 1850000.0 1950000.0 2050000.0 2150000.0 2250000.0 2350000.0 2450000.0 2550000.0 2650000.0 2750000.0 2850000.0 2950000.0 3050000.0]
        "Size of request bodies."
    STORAGE_OBJECTS Gauge STABLE "apiserver_storage_objects"
        ["resource"] []
        "Stored objects."
    ETCD_REQUESTS Counter ALPHA "etcd_requests_total"
        ["group" "operation" "resource"] []
        "Requests to etcd."
    ETCD_REQUEST_ERRORS Counter ALPHA "etcd_request_errors_total"
        ["group" "operation" "resource"] []
        "Requests to etcd that failed."
    ETCD_REQUEST_DURATION Histogram ALPHA "etcd_request_duration_seconds"
        ["group" "operation" "resource"] [0.005 0.025 0.05 0.1 0.2 0.4 0.6 0.8 1.0 1.25 1.5 2.0 3.0 4.0 5.0 6.0 8.0 10.0 15.0 20.0 30.0 45.0 60.0]
        "Time of requests to etcd."
    STORAGE_EVENTS Counter BETA "apiserver_storage_events_received_total"
        ["group" "resource"] []
        "Events received from etcd."
    RESOURCE_OBJECTS Gauge ALPHA "apiserver_resource_objects"
        ["group" "resource"] []
        "Stored objects by resource."
    TLS_HANDSHAKE_ERRORS Counter ALPHA "apiserver_tls_handshake_errors_total"
        [] []
        "Connections whose handshake failed."
    TERMINATED_WATCHERS Counter ALPHA "apiserver_terminated_watchers_total"
        ["group" "resource"] []
        "Watches ended because they were too slow."
    WATCH_EVENTS Counter ALPHA "apiserver_watch_events_total"
        ["group" "resource" "version"] []
        "Events sent to watches."
    WATCH_CACHE_VERSION Gauge ALPHA "apiserver_watch_cache_resource_version"
        ["group" "resource"] []
        "Revision the watch cache shows."
    AUTHENTICATION_ATTEMPTS Counter ALPHA "authentication_attempts"
        ["result"] []
        "Attempts to authenticate by result."
    AUTHENTICATION_DURATION Histogram ALPHA "authentication_duration_seconds"
        ["result"] [0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192 16.384]
        "Time to authenticate."
    AUTHORIZATION_ATTEMPTS Counter ALPHA "authorization_attempts_total"
        ["result"] []
        "Attempts to authorize by result."
    AUTHORIZATION_DURATION Histogram ALPHA "authorization_duration_seconds"
        ["result"] [0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192 16.384]
        "Time to authorize."
    FIELD_VALIDATION_DURATION Histogram ALPHA "field_validation_request_duration_seconds"
        ["field_validation"] [0.05 0.1 0.2 0.4 0.6 0.8 1.0 1.25 1.5 2.0 3.0 4.0 5.0 6.0 8.0 10.0 15.0 20.0 30.0 45.0 60.0]
        "Time to answer by kind of field validation."
    LOG_TLS_FAILURES Counter ALPHA "kube_apiserver_pod_logs_backend_tls_failure_total"
        [] []
        "Logs not shown because the kubelet could not be verified."
    BUILD_INFO Gauge BETA "kubernetes_build_info"
        ["build_date" "compiler" "git_commit" "git_tree_state" "git_version" "go_version" "major" "minor" "platform"] []
        "What was built."
    FEATURE_ENABLED Gauge BETA "kubernetes_feature_enabled"
        ["name" "stage"] []
        "Feature gates and whether they are on."
    HEALTHCHECK Gauge STABLE "kubernetes_healthcheck"
        ["name" "type"] []
        "Result of a health check."
    HEALTHCHECKS Counter STABLE "kubernetes_healthchecks_total"
        ["name" "status" "type"] []
        "Results of health checks."
    ENCRYPTION_RELOADS Counter ALPHA "apiserver_encryption_config_controller_automatic_reloads_total"
        ["apiserver_id_hash" "status"] []
        "Reloads of the encryption configuration."
    ENCRYPTION_RELOADED Gauge ALPHA "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds"
        ["apiserver_id_hash" "status"] []
        "When the encryption configuration was last reloaded."
    STALE_TOKENS Counter ALPHA "serviceaccount_stale_tokens_total" [] [] "Service account tokens that should have been replaced."
    VALID_TOKENS Counter ALPHA "serviceaccount_valid_tokens_total" [] [] "Service account tokens that are good."
    LEGACY_TOKENS Counter ALPHA "serviceaccount_legacy_tokens_total" [] [] "Tokens of Secrets that were used."
    LEGACY_AUTO_TOKENS Counter ALPHA "serviceaccount_legacy_auto_token_uses_total" [] [] "Uses of tokens of generated Secrets."
    LEGACY_MANUAL_TOKENS Counter ALPHA "serviceaccount_legacy_manual_token_uses_total" [] [] "Uses of tokens of Secrets made by hand."
    LEGACY_INVALID_TOKENS Counter ALPHA "serviceaccount_invalid_legacy_auto_token_uses_total" [] [] "Uses of tokens that were marked invalid."
    AUTHENTICATION_RELOADS Counter BETA "apiserver_authentication_config_controller_automatic_reloads_total"
        ["apiserver_id_hash" "status"] []
        "Reloads of the authentication configuration."
    AUTHENTICATION_RELOADED Gauge BETA "apiserver_authentication_config_controller_automatic_reload_last_timestamp_seconds"
        ["apiserver_id_hash" "status"] []
        "When the authentication configuration was last reloaded."
    AUTHORIZATION_RELOADS Counter BETA "apiserver_authorization_config_controller_automatic_reloads_total"
        ["apiserver_id_hash" "status"] []
        "Reloads of the authorization configuration."
    AUTHORIZATION_RELOADED Gauge BETA "apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds"
        ["apiserver_id_hash" "status"] []
        "When the authorization configuration was last reloaded."
    AUTHORIZATION_DECISIONS Counter ALPHA "apiserver_authorization_decisions_total"
        ["decision" "name" "type"] []
        "Decisions of each authorizer."
    CEL_COMPILATION Histogram BETA "apiserver_cel_compilation_duration_seconds"
        [] [0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0]
        "Time to compile a CEL expression."
    CEL_EVALUATION Histogram BETA "apiserver_cel_evaluation_duration_seconds"
        [] [0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0]
        "Time to evaluate a CEL expression."
    UNAVAILABLE_APISERVICE Gauge ALPHA "aggregator_unavailable_apiservice"
        ["name"] []
        "APIServices that cannot be reached."
    UNAVAILABLE_APISERVICES Counter ALPHA "aggregator_unavailable_apiservice_total"
        ["name" "reason"] []
        "How often an APIService could not be reached."
}
