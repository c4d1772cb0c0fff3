//! Services, endpoints, policies to kernel rules and DNS records (pure).
