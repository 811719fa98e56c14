import Glibc

/// The kernel's own account of this process, from /proc/self/status, in bytes.
package struct ProcessMemory: Sendable {
  package let peakResident: Int
  package let resident: Int
  package let residentAnonymous: Int
  package let residentFile: Int

  /// Makes the peak what is resident now; without effect where the system does not allow that.
  package static func resetPeak() {
    guard let stream = fopen("/proc/self/clear_refs", "w") else { return }
    fputs("5", stream)
    fclose(stream)
  }

  package static func now() -> ProcessMemory {
    var text = ""
    if let stream = fopen("/proc/self/status", "r") {
      var line = [CChar](repeating: 0, count: 256)
      while fgets(&line, Int32(line.count), stream) != nil {
        text += String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      }
      fclose(stream)
    }
    func kilobytes(_ key: String) -> Int {
      guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix(key + ":") }) else { return 0 }
      return 1024 * (line.split(whereSeparator: { " \t".contains($0) }).dropFirst().first.flatMap { Int($0) } ?? 0)
    }
    return ProcessMemory(
      peakResident: kilobytes("VmHWM"), resident: kilobytes("VmRSS"), residentAnonymous: kilobytes("RssAnon"),
      residentFile: kilobytes("RssFile"))
  }
}

/// Seconds on a clock that never goes back.
package func monotonicSeconds() -> Double {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}

/// Processors that are online.
package func availableProcessors() -> Int { max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))) }
