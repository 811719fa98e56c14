import Foundation

/// Files that are installed with the converter.
enum Resources {
  /// Beside the program (as built), or in its package's share folder (as installed).
  static func path(_ name: String) -> String? {
    guard let program = Bundle.main.executableURL?.resolvingSymlinksInPath().deletingLastPathComponent() else {
      return nil
    }
    let places = ["audiotoken-edge_Converter.resources", "../share/audiotoken"]
    return places.map { program.appendingPathComponent($0).appendingPathComponent(name).path }
      .first { FileManager.default.fileExists(atPath: $0) }
  }
}
