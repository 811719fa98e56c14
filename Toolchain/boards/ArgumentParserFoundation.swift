// Takes the place of swift-argument-parser's file of this task in programs for boards. That one brings Foundation in, 4 MB,
// for descriptions of errors that nothing here has, and for the JSON of --experimental-dump-help.

extension Error {
  func describe() -> String { String(describing: self) }
}

enum JSONEncoder {
  static func encode<T: Encodable>(_ value: T) -> String { "" }
}
