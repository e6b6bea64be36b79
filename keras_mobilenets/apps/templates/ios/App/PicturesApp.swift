import SwiftUI

@main
struct PicturesApp: App {
    var body: some Scene {
        WindowGroup {
            ContentView()
        }
    }
}
